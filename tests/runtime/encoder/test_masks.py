"""Masks with holes: what a mask leaves out was never there, in the reference and in every kind of graph."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from fuzzing.samples import scorers_of_samples
from support.tiny import tiny_bert

LENGTH = 60
BY_RATIOS = [(1, 0.5, 0.5, 0.5), (0.9, 0.5, 0.3, 0.3), (1, 1, 0.4, 0.2)]
BY_SCORERS = [
    LengthConfig((1, 0.5, 0.5, 0.5)),
    LengthConfig((1, 0.6, 0.6, 0.6), (None, 0.4, 0.5, None)),
    LengthConfig((0.8, 0.5, 0.5, 0.5), (0.3, None, 0.5, None)),
    LengthConfig((1, 1, 1, 1), (None, None, 0.5, None)),
]
CASES = [("attention", LengthConfig(r)) for r in BY_RATIOS] + [("learnt", config) for config in BY_SCORERS]

Inputs = dict[str, npt.NDArray[np.int64]]


def inputs_with_holes(seed: int) -> Inputs:
    """A tenth of each of four sequences left out, wherever it is; the question is the first twelve tokens."""
    random, positions = np.random.default_rng(seed), np.arange(LENGTH)
    mask = (random.random((4, LENGTH)) > 0.1) & (positions < np.array([[60], [60], [41], [14]]))
    mask[:, 20] = False  # at least one hole
    return {
        "input_ids": random.integers(0, 100, mask.shape),
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": np.broadcast_to(positions >= 12, mask.shape).astype(np.int64),
    }


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize(("kind", "config"), CASES)
def test_graphs_keep_and_compute_what_the_reference_does(
    samples: dict[str, Path], kind: str, config: LengthConfig, elastic: bool
) -> None:
    bert = tiny_bert(num_hidden_layers=4, max_position_embeddings=128)
    learnt = kind == "learnt"
    reference = ReferenceModel(bert, "learnt" if learnt else "attention", scorers_of_samples() if learnt else None)
    model = LengthAdaptiveModel.from_pretrained(samples[kind], num_threads=1, elastic=elastic)
    for seed in range(10):
        inputs = inputs_with_holes(seed)
        output = model(**inputs, length_config=config)
        with torch.inference_mode():
            expected = reference(**{n: torch.from_numpy(a) for n, a in inputs.items()}, length_config=config)
        real = inputs["attention_mask"] == 1
        for layer in config.selecting_layers:
            for mine, theirs in zip(output.kept_positions[layer], expected.kept[layer].numpy(), strict=True):
                assert mine[mine < LENGTH].tolist() == theirs[theirs < LENGTH].tolist()
        np.testing.assert_allclose(output.start_logits[real], expected.start_logits.numpy()[real], atol=1e-4)
        np.testing.assert_allclose(output.end_logits[real], expected.end_logits.numpy()[real], atol=1e-4)


@pytest.mark.parametrize(("kind", "config"), CASES)
def test_int8_graphs_agree_with_each_other(samples: dict[str, Path], kind: str, config: LengthConfig) -> None:
    """Fused where this CPU has VNNI."""
    models = [
        LengthAdaptiveModel.from_pretrained(samples[f"int8-{kind}"], num_threads=1, elastic=elastic)
        for elastic in (False, True)
    ]
    for seed in range(10):
        inputs = inputs_with_holes(seed)
        one, other = (model(**inputs, length_config=config) for model in models)
        real = inputs["attention_mask"] == 1
        # Where a layer does not select, attention rounds to 8 bits in the op; an elastic graph's layers all select.
        assert np.abs(one.start_logits - other.start_logits)[real].mean() <= 0.05
        for layer in config.selecting_layers:
            for mine, theirs in zip(one.kept_positions[layer], other.kept_positions[layer], strict=True):
                kept, wanted = set(mine[mine < LENGTH].tolist()), set(theirs[theirs < LENGTH].tolist())
                assert len(kept ^ wanted) <= 2  # one that was as near to being kept


def test_in_the_reference_a_sequence_with_holes_is_the_one_without_at_its_positions() -> None:
    """Positions are moved in the table instead: the tokens left, in a row, get the embeddings of where they stood."""
    bert, config = tiny_bert(num_hidden_layers=4, max_position_embeddings=128), BY_SCORERS[1]
    inputs = {name: torch.from_numpy(array[:1]) for name, array in inputs_with_holes(0).items()}
    left = torch.nonzero(inputs["attention_mask"][0])[:, 0]
    with torch.inference_mode():
        expected = ReferenceModel(bert, "learnt", scorers_of_samples())(**inputs, length_config=config)
        table = bert.bert.embeddings.position_embeddings.weight
        table[: len(left)] = table[left].clone()
        packed = {name: tensor[:, left] for name, tensor in inputs.items()}
        found = ReferenceModel(bert, "learnt", scorers_of_samples())(**packed, length_config=config)
    torch.testing.assert_close(found.start_logits[0], expected.start_logits[0, left], rtol=0, atol=1e-5)
    for layer in config.selecting_layers:
        kept, wanted = found.kept[layer][0], expected.kept[layer][0]
        assert left[kept[kept < len(left)]].tolist() == wanted[wanted < LENGTH].tolist()
