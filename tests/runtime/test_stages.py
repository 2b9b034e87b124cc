"""A model in two stages gives what it gives in one, also for the rows that stay when others leave."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.modeling.scorer import ContextRule
from dynamic_tinybert.runtime.common.errors import BundleFormatError, InferenceError, InvalidInputError
from dynamic_tinybert.runtime.encoder.cut_graph import cut_graph
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.stages import FirstStage, StagedModel

from support.classifiers import classifier_bundle, tiny_classifier
from support.tiny import tiny_bert, write_tiny_bundle

Load = Callable[[str, Any, int], StagedModel]

RATIOS = LengthConfig((0.9, 0.7, 0.4, 0.4))
LATE = LengthConfig((1.0, 1.0, 1.0, 0.5))
THRESHOLDS = LengthConfig((1.0,) * 4, (None, 0.5, 0.5, None))
BOTH = LengthConfig((1.0, 0.9, 0.5, 0.5), (None, 0.45, None, None))
CONFIGS = {
    "attention": ["full", RATIOS, LATE],
    "int8-attention": ["full", RATIOS, LATE],
    "learnt": ["full", RATIOS, LATE, BOTH],
    "int8-learnt": ["full", RATIOS, LATE, BOTH],
    "rule": ["full", RATIOS, THRESHOLDS, BOTH],
    "classifier": ["full", RATIOS, BOTH],
    "classifier-attention": ["full", RATIOS, LATE],
}
CASES = [(name, config) for name, configs in CONFIGS.items() for config in configs]


@pytest.fixture(scope="module")
def load(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Staged models by bundle, length configuration and layer; each is made once."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("stages")
    scorers: dict[int, Any] = {1: Scorer(32)}
    classifier = tiny_classifier(num_hidden_layers=4)
    bundles = dict(samples)
    ruled: dict[int, Any] = {**scorers, 2: ContextRule()}
    bundles["rule"] = write_tiny_bundle(folder / "rule", tiny_bert(num_hidden_layers=4), scorers=ruled)
    bundles["classifier"] = classifier_bundle(folder / "classifier", classifier, scorers=scorers)
    bundles["classifier-attention"] = classifier_bundle(folder / "attention", classifier)

    @cache
    def model(name: str) -> LengthAdaptiveModel:
        return LengthAdaptiveModel.from_pretrained(bundles[name], num_threads=1)

    @cache
    def staged(name: str, config: Any, layer: int) -> StagedModel:  # noqa: ANN401
        return StagedModel(model(name), config, after_layer=layer)

    return staged


def tensors(output: Any) -> dict[str, Any]:  # noqa: ANN401
    """The logits of a task's output by name."""
    return {name: value for name, value in vars(output).items() if name != "kept_positions"}


def check_row(found: Any, row: int, expected: Any, own: int, length: int, *, exact: bool) -> None:  # noqa: ANN401
    """A row of an output is a row of another one."""
    for name, values in tensors(expected).items():
        one, other = (
            array[:length] if array.ndim and name != "logits" else array
            for array in (tensors(found)[name][row], values[own])
        )
        np.testing.assert_allclose(one, other, rtol=0, atol=0 if exact else 1e-5)
    assert found.kept_positions.keys() == expected.kept_positions.keys()
    for layer, positions in expected.kept_positions.items():
        mine = found.kept_positions[layer][row]
        assert mine[mine < length].tolist() == positions[own][positions[own] < length].tolist()


@pytest.mark.parametrize(("name", "config"), CASES, ids=str)
def test_if_no_row_leaves_both_stages_give_what_the_model_gives(load: Load, name: str, config: Any) -> None:  # noqa: ANN401
    batch = random_batch([64, 33, 50], 100)
    for layer in range(3):
        staged = load(name, config, layer)
        expected = staged.model(**batch, length_config=config)
        found = staged.later(staged.first(**batch))
        for values, expected_values in zip(tensors(found).values(), tensors(expected).values(), strict=True):
            np.testing.assert_array_equal(values, expected_values)
        assert found.kept_positions.keys() == expected.kept_positions.keys()
        for kept, positions in expected.kept_positions.items():
            np.testing.assert_array_equal(found.kept_positions[kept], positions)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_leave_move_and_meet_rows_of_other_batches(load: Load, data: st.DataObject) -> None:
    name, config = data.draw(st.sampled_from(CASES))
    staged = load(name, config, data.draw(st.integers(0, 2)))
    lengths = data.draw(st.lists(st.lists(st.integers(4, 70), min_size=1, max_size=4), min_size=1, max_size=3))
    batches = [random_batch(own, 100) for own in lengths]
    firsts = [staged.first(**batch) for batch in batches]
    parts, origins = [], []
    for number, first in enumerate(firsts):
        assert len(first) == len(lengths[number])
        chosen = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=5))
        parts.append(first.rows(chosen))
        origins += [(number, row) for row in chosen]
    rows = FirstStage.joined(parts)
    order = data.draw(st.permutations(range(len(origins))))
    found = staged.later(rows.rows(order))
    exact = name.startswith("int8")
    for place, index in enumerate(order):
        number, row = origins[index]
        expected = staged.model(**batches[number], length_config=config)
        check_row(found, place, expected, row, lengths[number][row], exact=exact)
        np.testing.assert_array_equal(rows.rows(order).first_states[place], firsts[number].first_states[row])


def test_states_of_cls_and_significance(load: Load) -> None:
    """The first token of each row is there whatever leaves; the scorer's values decide what the layer keeps."""
    batch = random_batch([64, 33], 100)
    staged = load("rule", THRESHOLDS, 1)
    first = staged.first(**batch)
    significance = first.significance
    assert significance is not None
    assert significance.shape == batch["input_ids"].shape
    real = batch["attention_mask"] == 1
    question = (batch["token_type_ids"] == 0) & real
    np.testing.assert_array_equal(np.isnan(significance), question)
    for row in range(2):
        kept = set(np.flatnonzero((significance[row] >= 0.5) | question[row]).tolist())
        positions = first.kept_positions[1][row]
        assert set(positions[positions < first.length].tolist()) == kept
    assert first.first_states.shape == (2, 32)
    alone = staged.first(**{key: array[1:, :33] for key, array in batch.items()})
    np.testing.assert_allclose(alone.first_states[0], first.first_states[1], atol=1e-5)
    assert load("rule", THRESHOLDS, 0).first(**batch).significance is None
    assert load("attention", RATIOS, 1).first(**batch).significance is None


def test_fillers_go_with_the_rows_that_need_them(load: Load) -> None:
    staged = load("int8-learnt", RATIOS, 2)
    first = staged.first(**random_batch([64, 10], 100))
    short = first.rows([1])
    assert {layer: positions.shape[1] for layer, positions in short.kept_positions.items()} == {
        layer: int((positions[1] < 64).sum()) for layer, positions in first.kept_positions.items()
    }
    assert short.arrays["carried.state"].shape[1] < first.arrays["carried.state"].shape[1]


def test_bad_arguments_are_refused(load: Load) -> None:
    staged = load("learnt", "full", 0)
    for layer in (-1, 3, 1.5, True):
        with pytest.raises(InvalidInputError, match="after_layer"):
            StagedModel(staged.model, after_layer=layer)
    first = staged.first([[1, 2, 3]])
    with pytest.raises(InvalidInputError, match="at least one row"):
        first.rows([])
    with pytest.raises(InvalidInputError, match="at least one row"):
        FirstStage.joined([])
    with pytest.raises(InvalidInputError, match="outside"):
        staged.first([[1, 2, 100]])
    with pytest.raises(BundleFormatError, match=r"layer\.9\.output"):
        cut_graph(staged.model.specialised_graph(), 9)


def test_states_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    bert = tiny_bert()
    with torch.no_grad():
        bert.get_parameter("bert.encoder.layer.1.output.LayerNorm.weight")[3] = float("nan")
    staged = StagedModel(LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path, bert)), after_layer=1)
    with pytest.raises(InferenceError, match=r"carried\.state of token 0 in row 0"):
        staged.first([[1, 2, 3]])
