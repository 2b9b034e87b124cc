"""Texts for INT8: what is calibrated on, what is compared on, and the export of a classifier with them."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.export import export_model
from dynamic_tinybert.export.tasks.sequence_classification.samples import HeldOutTexts, read_samples
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels

from support.classifiers import save_classifier, texts, tiny_classifier


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("c"), tiny_classifier(3))


def pairs(file: Path, queries: int = 12) -> Path:
    """Each query with three documents."""
    first, second = texts(queries, 1, (2, 5)), texts(3 * queries, 2)
    rows = [{"text": first[i // 3], "text_pair": text, "label": i % 3} for i, text in enumerate(second)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_no_query_is_calibrated_and_compared_on(checkpoint: Path, tmp_path: Path) -> None:
    data = pairs(tmp_path / "pairs.jsonl")
    samples = read_samples(checkpoint / "tokenizer.json", data, None, 100, 128)
    assert samples.held_out.name == "held-out groups of pairs.jsonl"
    assert len(samples.calibration) + len(samples.held_out) == 36
    assert 4 < len(samples.held_out) < 14
    ids = [batch["input_ids"][0].tolist() for batch in samples.calibration]
    queries = [
        {str(own[: own.index(3)]) for own in group} for group in (ids, [t.input_ids for t in samples.held_out.tokens])
    ]
    assert not queries[0] & queries[1]
    assert all(batch["token_type_ids"].max() == 1 for batch in samples.calibration)
    again = read_samples(checkpoint / "tokenizer.json", data, None, 10, 128)
    assert [batch["input_ids"].tolist() for batch in again.calibration] == [[own] for own in ids[:10]]
    with_validation = read_samples(checkpoint / "tokenizer.json", data, pairs(tmp_path / "v.jsonl", 3), 100, 128)
    assert (len(with_validation.calibration), len(with_validation.held_out)) == (36, 9)
    one = tmp_path / "one.tsv"
    one.write_text("a\tb\t1\na\tc\t0\n")
    with pytest.raises(DataError, match="all of one group"):
        read_samples(checkpoint / "tokenizer.json", one, None, 10, 128)


@pytest.mark.parametrize(
    ("labels", "moved", "same"),
    [
        (Labels(("a", "b")), 50 * (0.5 - 1 / (1 + np.e)), 50.0),
        (Labels(("a", "b"), "multi_label_classification"), 25 * (1 / (1 + 1 / np.e) - 0.5), 50.0),
    ],
)
def test_what_moves_between_classes(labels: Labels, moved: float, same: float) -> None:
    """The first of two texts changes: its second logit was 1 and is 0, so that the first class wins."""
    before = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    after = np.array([[0.0, 0.0], [2.0, 0.0]], np.float32)
    change = HeldOutTexts("t", [None, None], labels).compare(before, after)  # type: ignore[list-item]
    assert change.moved == pytest.approx(moved, abs=1e-4)
    assert (change.same_answers, change.logit_error, change.f1, change.questions) == (same, 0.25, None, 2)


def test_what_moves_between_scores() -> None:
    """Of the three pairs of texts one changes its order."""
    held_out = HeldOutTexts("t", [None] * 3, Labels(("a",)))  # type: ignore[list-item]
    change = held_out.compare(np.array([[0.0], [1.0], [2.0]]), np.array([[1.5], [1.0], [2.0]]))
    assert change.same_answers == pytest.approx(200 / 3)
    assert change.moved == pytest.approx(100 * (1 / (1 + np.exp(-1.5)) - 0.5) / 3)
    equal = np.zeros((3, 1))
    assert held_out.compare(equal, equal).same_answers == 100


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_pairs_in_the_same_order_are_those_of_a_table_of_all(count: int, decimals: int) -> None:
    """Many outputs are equal before or after, where they are rounded to few digits."""
    random = np.random.default_rng(count)
    before = random.normal(size=(count, 1)).round(decimals)
    after = (before + random.normal(size=(count, 1))).round(decimals)
    pairs = np.sign(before - before.T) > 0
    expected = float((np.sign(after - after.T)[pairs] > 0).mean()) if pairs.any() else 1.0
    held_out = HeldOutTexts("t", [None] * count, Labels(("a",)))  # type: ignore[list-item]
    assert held_out.compare(before, after).same_answers == 100 * expected


def test_pairs_of_many_texts_are_counted_in_little_memory() -> None:
    """A table of all pairs would have 80 GB."""
    count = 100_000
    before = np.random.default_rng(0).normal(size=(count, 1))
    after = before.copy()
    after[[0, 1]] = after[[1, 0]]
    held_out = HeldOutTexts("t", [None] * count, Labels(("a",)))  # type: ignore[list-item]
    tracemalloc.start()
    try:
        change = held_out.compare(before, after)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert 99.99 < change.same_answers < 100
    assert held_out.compare(before, -before).same_answers == 0


def test_a_classifier_is_exported_to_int8(checkpoint: Path, tmp_path: Path) -> None:
    data = pairs(tmp_path / "pairs.jsonl")
    lines: list[str] = []
    report = export_model(
        checkpoint, tmp_path / "b", calibration_data=data, num_samples=8, tune=False, say=lines.append
    )
    (step,) = report.int8_steps
    assert 0 < step.change.moved < 20
    assert step.change.same_answers > 50
    assert any(
        "compared with FP32 on" in line and "examples of held-out groups of pairs.jsonl" in line for line in lines
    )
    export_model(checkpoint, tmp_path / "fp32", precision="fp32")
    held_out = read_samples(checkpoint / "tokenizer.json", data, None, 8, 128).held_out
    before, after = (held_out.run(LengthAdaptiveModel.from_pretrained(tmp_path / name)) for name in ("fp32", "b"))
    assert held_out.compare(before, after).moved == pytest.approx(step.change.moved, abs=0.01)
