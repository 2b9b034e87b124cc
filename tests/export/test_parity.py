"""The parity rule: graphs with selection against the PyTorch reference, both kinds of significance."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import Parity, Runner, TokenBatch, check_parity, graph_runner, random_batch
from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.modeling.scorer import ContextRule, scorer_weights
from dynamic_tinybert.runtime.common.errors import ParityError
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.tiny import random_bert, tiny_bert

LENGTHS = ([17], [64], [171], [384], [384, 17, 171, 64])
NONE: dict[int, float] = {}
CONFIGS = {  # significance, keep ratios, and the shares that thresholds shall keep
    "full": ("attention", (1, 1, 1, 1, 1, 1), NONE),
    "attention, mild": ("attention", (1, 0.95, 0.9, 0.8, 0.7, 0.6), NONE),
    "attention, steep": ("attention", (0.82, 0.65, 0.63, 0.41, 0.37, 0.09), NONE),
    "learnt, ratios": ("learnt", (1, 0.9, 0.7, 0.5, 0.3, 0.12), NONE),
    "learnt, thresholds": ("learnt", (1, 1, 0.9, 0.9, 0.9, 0.9), {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.5, 5: 0.3}),
    "learnt, thresholds and a rule": ("rule", (1, 1, 1, 1, 1, 1), {1: 0.8, 3: 0.5}),
    "learnt, ratios where a rule is": ("rule", (0.82, 0.65, 0.63, 0.41, 0.37, 0.09), NONE),
    "learnt, ratios where no scorer is": ("few", (0.82, 0.65, 0.63, 0.41, 0.37, 0.09), NONE),
    "learnt, a layer that only ranks": ("few", (1, 1, 1, 1, 0.6, 0.3), NONE),
}


def random_scorers(hidden_size: int, significance: str) -> dict[int, Scorer | ContextRule]:
    torch.manual_seed(1)
    layers = (1, 3) if significance == "few" else range(6)
    scorers: dict[int, Scorer | ContextRule] = {i: Scorer(hidden_size) for i in layers}
    return {**scorers, 4: ContextRule()} if significance == "rule" else scorers


def parity_of(model: BertForQuestionAnswering, name: str, batches: list[TokenBatch], *, elastic: bool) -> Parity:
    significance, ratios, shares = CONFIGS[name]
    config = LengthConfig(ratios)
    scorers = None
    reference = ReferenceModel(model)
    if significance != "attention":
        modules = random_scorers(model.config.hidden_size, significance)
        reference = ReferenceModel(model, "learnt", modules)
        scorers = {i: scorer_weights(scorer) for i, scorer in modules.items()}
        if shares:
            config = LengthConfig(ratios, thresholds_that_keep(shares, reference, batches[-1]))
    run = graph_runner(
        write_ir(model),
        config,
        task=QUESTION_ANSWERING,
        num_heads=model.config.num_attention_heads,
        scorers=scorers,
        elastic=elastic,
    )
    return check_parity(reference, run, batches, config)


def thresholds_that_keep(
    shares: dict[int, float], reference: ReferenceModel, batch: TokenBatch
) -> tuple[float | None, ...]:
    inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
    asked = LengthConfig((1,) * 6, tuple(-1.0 if i in shares else None for i in range(6)))  # and none drops
    with torch.inference_mode():
        output = reference(**inputs, length_config=asked)
    real = inputs["attention_mask"].bool()
    sample = SignificanceSample(
        {layer: values[real].numpy() for layer, values in output.significance.items()},
        6,
        rule_layer=reference.rule_layer,
    )
    return sample.length_config(Schedule.of_layers(6, shares)).thresholds


def assert_close_to_all_chosen_alike(name: str, found: Parity) -> None:
    assert found.disputed <= found.chosen_from / 1000
    significance, ratios, shares = CONFIGS[name]
    selecting = {i for i, ratio in enumerate(ratios) if ratio < (1, *ratios)[i]} | set(shares)
    everything = (len(selecting) + (significance == "rule" and bool(shares))) * sum(map(sum, LENGTHS))
    # If nothing was dropped, each selecting layer chose from all tokens.
    assert 0 < found.chosen_from < 0.95 * everything or name == "full"


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_tiny_model(name: str, elastic: bool) -> None:
    model = tiny_bert(num_hidden_layers=6, max_position_embeddings=384)
    batches = [random_batch(lengths, 100) for lengths in LENGTHS]
    assert_close_to_all_chosen_alike(name, parity_of(model, name, batches, elastic=elastic))


@pytest.mark.parametrize("name", CONFIGS)
def test_real_checkpoint(checkpoint: Path, name: str) -> None:
    model = load_checkpoint(checkpoint).model
    batches = [random_batch(lengths, model.config.vocab_size) for lengths in LENGTHS]
    assert_close_to_all_chosen_alike(name, parity_of(model, name, batches, elastic=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_shape_of_dynamic_tinybert(name: str) -> None:
    model = random_bert({"num_hidden_layers": 6})  # the rest is BERT-base's
    batches = [random_batch(lengths, model.config.vocab_size) for lengths in LENGTHS]
    assert_close_to_all_chosen_alike(name, parity_of(model, name, batches, elastic=False))


def test_batch_with_padding_inside_a_row() -> None:
    model = tiny_bert()
    batch = dict(random_batch([60, 40], 100))
    batch["attention_mask"] = batch["attention_mask"].copy()
    batch["attention_mask"][:, 20:27] = 0
    config = LengthConfig((0.9, 0.6, 0.3))
    run = graph_runner(write_ir(model), config, task=QUESTION_ANSWERING, num_heads=4)
    assert check_parity(ReferenceModel(model), run, [batch], config).chosen_from > 0


@pytest.fixture(scope="module")
def tiny_case() -> tuple[ReferenceModel, Runner, TokenBatch, LengthConfig]:
    model, config = tiny_bert(), LengthConfig((1, 0.6, 0.3))
    run = graph_runner(write_ir(model), config, task=QUESTION_ANSWERING, num_heads=4)
    return ReferenceModel(model), run, random_batch([50], 100), config


@pytest.mark.parametrize("wrong_by", [0.001, float("nan")])
def test_wrong_logits_are_found(
    tiny_case: tuple[ReferenceModel, Runner, TokenBatch, LengthConfig], wrong_by: float
) -> None:
    reference, run, batch, config = tiny_case

    def wrong(batch: TokenBatch) -> dict[str, np.ndarray]:
        outputs = dict(run(batch))
        outputs["end_logits"] = outputs["end_logits"] + np.float32(wrong_by)
        return outputs

    with pytest.raises(ParityError, match="logits"):
        check_parity(reference, wrong, [batch], config)


def test_a_wrong_choice_of_tokens_is_found(
    tiny_case: tuple[ReferenceModel, Runner, TokenBatch, LengthConfig],
) -> None:
    reference, _, batch, config = tiny_case
    # A graph that drops by other keep ratios chooses other tokens, though its logits are right for them.
    other = graph_runner(write_ir(reference.model), LengthConfig((1, 0.5, 0.3)), task=QUESTION_ANSWERING, num_heads=4)
    with pytest.raises(ParityError, match="drops the token"):
        check_parity(reference, other, [batch], config)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_the_graph_stays_within_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[ov.CompiledModel] = []

    class Recorded(CompiledGraph):
        def __init__(self, compile_model: Callable[[], ov.CompiledModel]) -> None:
            compiled.append(compile_model())
            super().__init__(lambda: compiled[0])

    monkeypatch.setattr("dynamic_tinybert.runtime.cpu_quota.usable_cpus", lambda root: 1)
    monkeypatch.setattr("dynamic_tinybert.export.parity.CompiledGraph", Recorded)
    run = graph_runner(write_ir(tiny_bert()), LengthConfig.full(3), task=QUESTION_ANSWERING, num_heads=4)
    assert compiled[0].get_property("INFERENCE_NUM_THREADS") == 1
    assert run(random_batch([17], 100))["start_logits"].shape == (1, 17)
