import json
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torchmetrics.text import SQuAD

from dynamic_tinybert.runtime.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.squad import Example, exact_match, f1, normalize, read_squad

WORDS = st.lists(
    st.sampled_from(
        ["the", "A", "an", "Mill", "mill.", "“stone”", "naïve", "3.5%", "--", "of", "\u00a0", "x-y", "x", "y"]
    ),
    max_size=6,
).map(" ".join)


def write(folder: Path, content: object) -> Path:
    file = folder / "squad.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def article(**changes: object) -> dict[str, object]:
    question = {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}, {"text": "she"}]}
    return {"title": "T", "paragraphs": [{"context": "Ada.", "qas": [{**question, **changes}]}]}


def test_read(tmp_path: Path) -> None:
    file = write(tmp_path, {"data": [article(), article(id="q2", answers=[])], "version": "1.1"})
    first, second = read_squad(file)
    assert first == Example("q1", "Who?", "Ada.", ("Ada", "she"), "T", (0, None))
    assert second.answers == ()
    assert read_squad(file, limit=1) == [first]
    assert read_squad(str(file), limit=9) == [first, second]


def test_read_without_answers_or_title(tmp_path: Path) -> None:
    data = [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q"}]}]}]
    assert read_squad(write(tmp_path, {"data": data})) == [Example("1", "q", "c", (), "")]


def test_read_real_file(squad_data: Path) -> None:
    examples = read_squad(squad_data / "squad-search.json", require_answers=True)
    assert len(examples) == 1530
    assert len({example.title for example in examples}) == 8
    assert all(answer in example.context for example in examples for answer in example.answers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"squad.json has no list 'data', so this is not SQuAD v1.1 JSON"),
        ({"data": {}}, r"squad\.json has no list 'data'"),
        ({"data": []}, "squad.json holds no question"),
        ({"data": [{"title": "T", "paragraphs": []}]}, "holds no question"),
        ({"data": [article(), 7]}, r"squad.json, data\[1\] must be an object, not 7"),
        ({"data": [{"question": "Who?"}]}, r"squad.json, data\[0\] has no list 'paragraphs'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\], paragraphs\[0\] has no text 'context'"),
        ({"data": [article(question=" ")]}, r"data\[0\], paragraphs\[0\], qas\[0\] has no text 'question'"),
        ({"data": [article(id=3)]}, r"qas\[0\] has no text 'id'"),
        ({"data": [article(answers="Ada")]}, r"qas\[0\] has no list 'answers'"),
        ({"data": [article(answers=[{"txt": "Ada"}])]}, r"qas\[0\], answers\[0\] has no text 'text'"),
        ({"data": [article(answers=[])]}, r"qas\[0\] has no answer, and scoring needs one"),
    ],
)
def test_wrong_layout(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_squad(write(tmp_path, content), require_answers=True)


@pytest.mark.parametrize("content", [b'{"data": [', b"\xff\xfe", b"", b"[" * 100_000])
def test_not_json(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "squad.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"squad\.json is not JSON"):
        read_squad(file)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*missing\.json: No such file"):
        read_squad(tmp_path / "missing.json")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read_squad(tmp_path)


def test_limit_below_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="limit must be an int of at least 1, not 0"):
        read_squad(write(tmp_path, {"data": [article()]}), limit=0)


@given(prediction=WORDS, answers=st.lists(WORDS, min_size=1, max_size=3))
@example(prediction="the Mill", answers=["A mill."])
@example(prediction="mill of stone", answers=["stone mill", "mill"])
def test_scores_are_those_of_torchmetrics(prediction: str, answers: list[str]) -> None:
    assume(all(map(normalize, answers)))  # else torchmetrics follows SQuAD 2.0
    metric = SQuAD()
    expected = metric(
        [{"prediction_text": prediction, "id": "1"}],
        [{"answers": {"answer_start": [0] * len(answers), "text": answers}, "id": "1"}],
    )
    assert exact_match(prediction, answers) == expected["exact_match"]
    assert f1(prediction, answers) == pytest.approx(float(expected["f1"]), abs=1e-3)


def test_texts_of_articles_alone() -> None:
    """As the official script of v1.1 has it: equal, but without a word in common."""
    assert exact_match("the", ["a"]) == 100
    assert f1("the", ["a"]) == 0
