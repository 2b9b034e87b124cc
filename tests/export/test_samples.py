import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dynamic_tinybert.export.samples import calibration_samples
from dynamic_tinybert.runtime.errors import DataError

from tiny import tiny_tokenizer

CONTEXT = "the fox was in the box and the cat was in the hat . who was in it ?"
TOO_LONG = "who was in the box " * 10
WITHOUT_TOKEN = "\u200b"


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokenizer.json"
    tiny_tokenizer().save(str(file))
    return file


def write(folder: Path, *questions: str) -> Path:
    qas = [{"id": str(i), "question": question} for i, question in enumerate(questions)]
    file = folder / "squad.json"
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": qas}]}]}))
    return file


def test_windows_are_those_of_transformers(tmp_path: Path, tokenizer_file: Path) -> None:
    (only,) = calibration_samples(tokenizer_file, write(tmp_path, "who was it ?"), 8, 128)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    expected = tokenizer("who was it ?", CONTEXT, return_token_type_ids=True)
    assert {name: array.tolist() for name, array in only.items()} == {n: [ids] for n, ids in expected.items()}


def test_no_more_than_asked_and_always_the_same(tmp_path: Path, tokenizer_file: Path) -> None:
    data = write(tmp_path, *(f"who was {letter} ?" for letter in "abcdefgh"))
    first, again = (calibration_samples(tokenizer_file, data, 5, 128) for _ in range(2))
    assert len(first) == 5
    assert len({sample["input_ids"].tobytes() for sample in first}) == 5
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_questions_that_the_model_cannot_read_are_skipped(tmp_path: Path, tokenizer_file: Path) -> None:
    usable = calibration_samples(tokenizer_file, write(tmp_path, "who was it ?"), 8, 40)
    mixed = write(tmp_path, TOO_LONG, "who was it ?", WITHOUT_TOKEN)
    samples = calibration_samples(tokenizer_file, mixed, 8, 40)
    assert [s["input_ids"].tolist() for s in samples] == [s["input_ids"].tolist() for s in usable]


@pytest.mark.parametrize(
    ("question", "reason"), [(TOO_LONG, "question is too long"), (WITHOUT_TOKEN, "holds no token")]
)
def test_a_file_without_a_usable_question_is_refused_by_name(
    tmp_path: Path, tokenizer_file: Path, question: str, reason: str
) -> None:
    with pytest.raises(DataError, match=rf"squad\.json holds no question that this model can read: .*{reason}"):
        calibration_samples(tokenizer_file, write(tmp_path, question), 8, 40)
