"""The measure of a task: which one a bundle has, and what question answering's says of its examples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks import measure as measures
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.measure import QuestionAnsweringMeasure

from support.tiny import tiny_bert, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_bert()))


def test_a_bundle_has_the_measure_of_its_task(bundle: Bundle) -> None:
    measure = measure_of(bundle)
    assert isinstance(measure, QuestionAnsweringMeasure)
    assert dict(measure.metrics) == {"f1": "F1", "exact_match": "EM"}
    with pytest.raises(
        InvalidInputError, match="no measure for the task 'translation', only for question_answering, sequence"
    ):
        measure_of(replace(bundle, task="translation"))


def test_a_measure_is_found_by_the_name_of_its_task(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measures.MEASURES, "toy", f"{__name__}:Toy.of")
    toy = measure_of(replace(bundle, task="toy"))
    assert isinstance(toy, Toy)
    assert toy.place == bundle.path


@dataclass(frozen=True)
class Toy:
    place: Path

    @classmethod
    def of(cls, bundle: Bundle) -> "Toy":
        return cls(bundle.path)


def test_questions_of_an_article_are_one_group(bundle: Bundle) -> None:
    measure = measure_of(bundle)
    titled = [Example("1", "who?", "a b c", (), "Letters"), Example("2", "what?", "d e f", (), "Letters")]
    untitled = [replace(example, title="") for example in titled]
    assert len({measure.group_of(example) for example in titled}) == 1
    assert len({measure.group_of(example) for example in untitled}) == 2


@dataclass(frozen=True)
class Tokens:
    input_ids: Sequence[int]
    token_type_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def test_sequences_are_stacked_with_their_types_and_padded() -> None:
    batch = stack([Tokens([2, 5, 3], [0, 0, 1]), Tokens([2, 3], [0, 1])], multiple=4)
    assert {name: array.tolist() for name, array in batch.items()} == {
        "input_ids": [[2, 5, 3, 0], [2, 3, 0, 0]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 0, 0]],
        "token_type_ids": [[0, 0, 1, 0], [0, 1, 0, 0]],
    }


def test_windows_are_sequences_whose_context_is_the_second_segment(bundle: Bundle) -> None:
    windows = measure_of(bundle).windows_of(Example("1", "who was in", "a b c " * 60, (), ""))
    assert len(windows) > 1
    batch = stack(windows)
    for row, window in enumerate(windows):
        question = batch["input_ids"][row].tolist().index(3) + 1  # [SEP]
        np.testing.assert_array_equal(batch["token_type_ids"][row, : len(window)], np.arange(len(window)) >= question)
