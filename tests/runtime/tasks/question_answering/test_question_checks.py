from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.findings import Kind
from dynamic_tinybert.runtime.tasks.question_answering.question_checks import check_questions
from dynamic_tinybert.runtime.tasks.question_answering.squad import Example
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from support.tiny import tiny_tokenizer

ALL = {kind: f"done with {kind.name}" for kind in Kind}
CONTEXT = "the cat was in the  box and\nthe hat , 19 in 1931"


def asked(*answers: tuple[str, object], name: str = "x", impossible: bool = False) -> Example:
    return Example(
        name, "who ?", CONTEXT, tuple(text for text, _ in answers), "", tuple(start for _, start in answers), impossible
    )


@pytest.mark.parametrize(
    ("answers", "kind", "placed"),
    [
        ([("cat", 4)], None, [("cat", 4)]),
        ([("cat", 5)], Kind.PUT_RIGHT, [("cat", 4)]),
        ([("cat", 999)], Kind.PUT_RIGHT, [("cat", 4)]),
        ([("cat", "4")], Kind.PUT_RIGHT, [("cat", 4)]),
        ([("cat", True)], Kind.PUT_RIGHT, [("cat", 4)]),
        ([("cat", None)], Kind.WITHOUT_PLACE, [("cat", 4)]),
        ([("the", 1)], Kind.MISPLACED, [("the", None)]),
        ([("the", None)], Kind.WITHOUT_PLACE, [("the", None)]),
        ([("dog", 4)], Kind.MISPLACED, [("dog", None)]),
        ([("the box", 15)], Kind.PUT_RIGHT, [("the  box", 15)]),  # white space alone differs
        ([("box and the hat", 0)], Kind.PUT_RIGHT, [("box and\nthe hat", 20)]),
        ([(" the ", 0)], Kind.PUT_RIGHT, [("the", 0)]),  # stands often, but here
        ([("  the", 26)], Kind.PUT_RIGHT, [("the", 28)]),
        ([("in", 3), ("cat", 4)], Kind.MISPLACED, [("in", None), ("cat", 4)]),
        ([("cat", 5), ("in", 3)], Kind.MISPLACED, [("cat", 4), ("in", None)]),
        ([("in", None), ("cat", 5)], Kind.PUT_RIGHT, [("in", None), ("cat", 4)]),
        ([("cat", 4), ("dog", None)], Kind.WITHOUT_PLACE, [("cat", 4), ("dog", None)]),
        ([("cat", 4), ("dog", 4)], Kind.MISPLACED, [("cat", 4), ("dog", None)]),
        ([("1", 0)], Kind.MISPLACED, [("1", None)]),
        ([("1931", 0)], Kind.PUT_RIGHT, [("1931", 44)]),
        ([("cat", [4])], Kind.PUT_RIGHT, [("cat", 4)]),
    ],
)
def test_answers_get_the_one_place_where_they_are(
    answers: list[tuple[str, object]], kind: Kind | None, placed: list[tuple[str, int | None]]
) -> None:
    checked = check_questions([asked(*answers)], ALL, name="f.json")
    (example,) = checked.examples
    assert list(zip(example.answers, example.answer_starts, strict=True)) == placed
    assert [finding.kind for finding in checked.findings] == ([] if kind is None else [kind])
    for text, start in placed:
        assert start is None or CONTEXT.startswith(text, start)


@given(
    context=st.text("ab \n", min_size=1, max_size=12).filter(str.strip),
    text=st.text("ab ", min_size=1, max_size=4).filter(str.strip),
    start=st.integers(-2, 14),
)
@example(context="aa", text=" a", start=0)
def test_a_place_is_never_guessed(context: str, text: str, start: int) -> None:
    """Against a search that tries every stretch of the context."""
    (example,) = check_questions([Example("x", "q", context, (text,), "", (start,))], ALL, name="f").examples
    stretches = [
        (i, j)
        for i in range(len(context))
        for j in range(i + 1, len(context) + 1)
        if context[i:j].split() == text.split() and context[i:j] == context[i:j].strip()
    ]
    (own,), (place,) = example.answers, example.answer_starts
    if place is None:
        near = [i for i, _ in stretches if i in (start, start + len(text) - len(text.lstrip()))]
        assert len(stretches) != 1
        assert len(near) != 1  # two readings of a start, before and behind a leading blank, are none
    else:
        assert isinstance(place, int)
        assert context.startswith(own, place)
        assert own.split() == text.split()
        assert len(stretches) == 1 or own == text or place in (start, start + len(text) - len(text.lstrip()))


def test_every_kind_is_counted_with_its_first(tmp_path: Path) -> None:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    windows = Windowing(tmp_path / "tokenizer.json", 64)
    examples = [
        asked(("cat", 4), name="good"),
        asked(("cat", 5), name="moved"),
        asked(("the", 1), name="lost"),
        asked(("dog", 1), name="gone"),
        asked(name="bare"),
        asked(name="none", impossible=True),
        asked(("cat", 4), name="both", impossible=True),
        Example("long", "who " * 99, CONTEXT, ("cat",), "", (4,)),
        asked(("cat", 4), name="good"),
    ]
    checked = check_questions(examples, ALL, windows, name="f.json")
    assert [(finding.id, finding.kind.name) for finding in checked.findings] == [
        ("moved", "PUT_RIGHT"),
        ("lost", "MISPLACED"),
        ("gone", "MISPLACED"),
        ("bare", "WITHOUT_ANSWER"),
        ("both", "WITHOUT_ANSWER"),
        ("long", "UNREADABLE"),
        ("good", "SAME_ID"),
    ]
    assert [example.id for example in checked.readable] == [e.id for e in examples if e.id != "long"]
    assert checked.lines[2] == (
        "f.json: 2 of 9 questions have an answer that is not where the file says and cannot be corrected (done with "
        "MISPLACED); the first is question 'lost': the answer 'the' is not at its answer_start 1, and occurs 3 times "
        "in the context"
    )
    assert checked.lines[0].endswith(checked.findings[5].why)
    assert len(checked.lines) == 5
    assert "question 'both': it has the answer 'cat', but is_impossible" in check_questions(
        examples[6:7], ALL, name="f"
    ).lines[0]  # fmt: skip
    for number in (1, 2, 4, 6, 7):
        with pytest.raises(DataError, match=f"f.json, question '{examples[number].id}': "):
            check_questions([examples[0], *examples[number:]], ALL, windows, name="f.json", strict=True)
    assert check_questions([examples[0], examples[5]], ALL, windows, name="f", strict=True).findings == []
    assert check_questions(examples, {Kind.SAME_ID: "kept"}, windows, name="f").findings == checked.findings[-1:]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([("dog", 3), ("cat", 4)], "the answer 'dog' is not at its answer_start 3, nor in the context 'the cat "),
        ([("dog", None)], "the answer 'dog' has no answer_start and is not in the context 'the cat was in "),
        ([("cat", None)], "the answer 'cat' has no answer_start, but occurs at 4"),
        ([("the", None)], "the answer 'the' has no answer_start, and occurs 3 times in the context"),
        ([("dog", None), ("cat", 5)], "the answer 'cat' is not at its answer_start 5, but at 4"),
        ([("cat", 5), ("dog", 3)], "the answer 'dog' is not at its answer_start 3, nor in the context "),
    ],
)
def test_the_reason_is_that_of_the_kind(answers: list[tuple[str, object]], why: str) -> None:
    (finding,) = check_questions([asked(*answers)], ALL, name="f").findings
    assert finding.why.startswith(why)
    assert ("cannot be corrected" in finding.kind) == ("is not at" in why and "but at" not in why)


def test_blank_questions_and_contexts_are_counted(tmp_path: Path) -> None:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    windows = Windowing(tmp_path / "tokenizer.json", 64)
    examples = [asked(("cat", 4)), Example("q", "", CONTEXT, ("cat",), "", (4,)), Example("c", "who ?", " \n", (), "")]
    checked = check_questions(examples, {Kind.UNREADABLE: "skipped"}, windows, name="f")
    assert [finding.id for finding in checked.findings] == ["q", "c"]
    assert checked.readable == examples[:1]


def test_no_questions_are_refused_in_words(tmp_path: Path) -> None:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    error = Windowing(tmp_path / "tokenizer.json", 64).refuse_all("any of the 0 questions")
    assert isinstance(error, DataError)
    assert str(error) == "the model cannot read any of the 0 questions: there are none"


@pytest.mark.parametrize("starts", [(4,), (4, 4, 4)])
def test_each_answer_has_a_start_or_none_has(starts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=f"question 'x' has 2 answers and {len(starts)} answer_starts"):
        Example("x", "who ?", CONTEXT, ("cat", "the cat"), "", starts)
    (finding,) = check_questions([Example("x", "who ?", CONTEXT, ("cat", "the cat"), "")], ALL, name="f").findings
    assert finding.kind == Kind.WITHOUT_PLACE
