import json
import re
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dynamic_tinybert.export.tasks.question_answering.questions import Questions
from dynamic_tinybert.export.tasks.question_answering.samples import read_samples
from dynamic_tinybert.export.tasks.samples import Samples
from dynamic_tinybert.runtime.common.errors import DataError

from support.tiny import tiny_tokenizer

CONTEXT = "the fox was in the box and the cat was in the hat . who was in it ?"
TOO_LONG = "who was in the box " * 10
WITHOUT_TOKEN = "\u200b"


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokenizer.json"
    tiny_tokenizer().save(str(file))
    return file


def write(folder: Path, *articles: tuple[str, ...], name: str = "squad.json", answers: int = 0) -> Path:
    """A file of articles, each a tuple of its questions; so many of the first article's have an answer."""
    content = []
    for k, questions in enumerate(articles):
        qas: list[dict[str, object]] = [{"id": f"{k}.{i}", "question": text} for i, text in enumerate(questions)]
        for question in qas[: 0 if k else answers]:
            question["answers"] = [{"text": "the fox", "answer_start": 0}]
        content.append({"title": str(k), "paragraphs": [{"context": CONTEXT, "qas": qas}]})
    file = folder / name
    file.write_text(json.dumps({"data": content}))
    return file


def asked(samples: Samples[Questions]) -> set[str]:
    return {example.question for example in samples.held_out.examples}


def test_windows_are_those_of_transformers(tmp_path: Path, tokenizer_file: Path) -> None:
    data = write(tmp_path, ("who was it ?",))
    samples = read_samples(tokenizer_file, data, data, 8, 128)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    expected = tokenizer("who was it ?", CONTEXT, return_token_type_ids=True)
    (only,) = samples.calibration
    assert {name: array.tolist() for name, array in only.items()} == {n: [ids] for n, ids in expected.items()}
    ((window,),) = samples.held_out.windows
    assert window.encoding.ids == expected["input_ids"]


def test_no_more_than_asked_and_always_the_same(tmp_path: Path, tokenizer_file: Path) -> None:
    data = write(tmp_path, *((f"who was {letter} ?",) for letter in "abcdefgh"))
    first, again = (read_samples(tokenizer_file, data, None, 5, 128) for _ in range(2))
    assert len(first.calibration) == 5
    assert len({sample["input_ids"].tobytes() for sample in first.calibration}) == 5
    for one, other in zip(first.calibration, again.calibration, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])
    assert first.held_out.examples == again.held_out.examples


def test_without_validation_whole_articles_are_held_out(tmp_path: Path, tokenizer_file: Path) -> None:
    articles = [tuple(f"who was {letter} in {k} ?" for letter in "abc"[: 1 + k % 3]) for k in range(10)]
    samples = read_samples(tokenizer_file, write(tmp_path, *articles, answers=3), None, 99, 128)
    held_out = asked(samples)
    for questions in articles:
        assert held_out.issuperset(questions) or held_out.isdisjoint(questions)
    total = sum(map(len, articles))
    assert 0.2 * total <= len(held_out) <= 0.2 * total + 3
    assert len(held_out) + len(samples.calibration) == total
    assert not samples.held_out.scored  # the checkpoint may have been trained on them
    assert len(samples.held_out.first(2).windows) == 2


@pytest.mark.parametrize(("answers", "scored"), [(2, True), (1, False), (0, False)])
def test_validation_is_scored_by_f1_if_all_of_it_has_answers(
    tmp_path: Path, tokenizer_file: Path, answers: int, scored: bool
) -> None:
    data = write(tmp_path, ("who was it ?", "what was it ?"))
    validation = write(tmp_path, ("where was it ?", "where was b ?"), name="validation.json", answers=answers)
    samples = read_samples(tokenizer_file, data, validation, 8, 128)
    assert asked(samples) == {"where was it ?", "where was b ?"}
    assert samples.held_out.scored is scored
    assert len(samples.calibration) == 2


def test_one_article_cannot_be_held_out(tmp_path: Path, tokenizer_file: Path) -> None:
    data = write(tmp_path, ("who was it ?", "what was it ?"))
    with pytest.raises(DataError, match=r"squad\.json are all about one article.*validation"):
        read_samples(tokenizer_file, data, None, 8, 128)


def test_questions_that_the_model_cannot_read_are_skipped(tmp_path: Path, tokenizer_file: Path) -> None:
    usable = write(tmp_path, ("who was it ?",))
    samples = read_samples(tokenizer_file, usable, usable, 8, 40)
    assert samples.lines == []
    validation = write(tmp_path, ("where was it ?", WITHOUT_TOKEN), name="validation.json")
    mixed = write(tmp_path, (TOO_LONG, "who was it ?"))
    samples = read_samples(tokenizer_file, mixed, validation, 8, 40)
    assert asked(samples) == {"where was it ?"}
    assert len(samples.calibration) == len(samples.held_out.windows[0])
    (line,) = samples.lines
    assert re.fullmatch(
        r"squad\.json and validation\.json: 2 of 4 questions cannot be read by the model \(skipped\); "
        r"the first is question '0\.1': question is empty: .* holds no token",
        line,
    )


@pytest.mark.parametrize(
    ("question", "reason"), [(TOO_LONG, "question is too long"), (WITHOUT_TOKEN, "holds no token")]
)
def test_a_file_without_a_usable_question_is_refused_by_name(
    tmp_path: Path, tokenizer_file: Path, question: str, reason: str
) -> None:
    usable, unusable = write(tmp_path, ("who ?",)), write(tmp_path, (question,), name="unusable.json")
    for data, validation in ((unusable, usable), (usable, unusable)):
        with pytest.raises(DataError, match=rf"the model cannot read any question of .*unusable\.json: .*{reason}"):
            read_samples(tokenizer_file, data, validation, 8, 40)
