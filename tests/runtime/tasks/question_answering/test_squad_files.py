"""Data files in the forms that people have."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.squad import Example, read_squad

CASES = Path(__file__).parents[3] / "data" / "cases"
TEXT = "The harbour bridge in Velmora was opened in 1931 by the engineer Ida Kroll. It cost nine million crowns."
WHO = Example("a1", "Who opened the bridge?", TEXT, ("Ida Kroll",), "Velmora", (65,))
WHEN = Example("a2", "When was it opened?", TEXT, ("1931",), "Velmora", (44,))


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
        ([], "squad.json holds no question"),
        ({"version": "1.1"}, r"squad.json has no list 'data', so this is neither SQuAD JSON nor rows of questions"),
        ({"data": {}}, r"squad\.json has no list 'data'"),
        ({"data": []}, "squad.json holds no question"),
        ({"data": [{"title": "T", "paragraphs": []}]}, "holds no question"),
        ({"data": [article(), 7]}, r"squad.json, data\[1\] must be an object, not 7"),
        ({"data": [{"question": "Who?"}]}, r"squad.json, data\[0\] has no list 'paragraphs'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\], paragraphs\[0\] has no text 'context'"),
        ({"data": [article(question=None)]}, r"data\[0\], paragraphs\[0\], qas\[0\] has no text 'question'"),
        ({"data": [article(id=[3])]}, r"qas\[0\]: its id must be text or an integer, not \[3\]"),
        ({"data": [article(id=True)]}, r"qas\[0\]: its id must be text or an integer, not True"),
        ({"data": [article(is_impossible="no")]}, r"qas\[0\]: is_impossible must be true or false, not 'no'"),
        ({"data": [article(answers={"text": "Ada"})]}, r"qas\[0\]: the column 'text' of its answers must be a list"),
        (
            {"data": [article(answers={"text": ["Ada"], "answer_start": []})]},
            r"'answer_start' of its answers must be a list of 1 numbers, as 'text' has, not \[\]",
        ),
        ([{"context": "Ada.", "question": 3}], r"squad.json, \[0\] has no text 'question'"),
        ([3], r"squad.json, \[0\] must be an object, not 3"),
        ({"data": [article(answers="Ada")]}, r"qas\[0\] has no list 'answers'"),
        ({"data": [article(answers=[{"txt": "Ada"}])]}, r"qas\[0\], answers\[0\] has no text 'text'"),
        ({"data": [article(answers=[])]}, r"qas\[0\] has no answer, and scoring needs one"),
    ],
)
def test_wrong_layout(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_squad(write(tmp_path, content), require_answers=True)


@pytest.mark.parametrize("content", [b'{"data": [', b"", b"[" * 100_000])
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


@pytest.mark.parametrize(
    "name", ["hfans.json", "rows_data.json", "rows_list.json", "rows.jsonl", "bom.json", "crlf.json"]
)
def test_the_same_questions_in_every_form(name: str) -> None:
    first, second = read_squad(CASES / name)
    assert (first, second) == (WHO, WHEN)
    for example in (first, second):
        start = int(str(example.answer_starts[0]))
        assert example.context.startswith(example.answers[0], start)


def test_line_ends_within_a_context_keep_their_offsets(tmp_path: Path) -> None:
    context = "One.\r\nTwo.\rThree.\n\u2028Four."
    rows = [{"id": "1", "context": context, "question": "q", "answers": {"text": ["Four"], "answer_start": [19]}}]
    for name, content in (
        ("lines.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows * 2)),
        ("list.json", json.dumps(rows * 2, indent=1).replace("\n", "\r\n")),
    ):
        (tmp_path / name).write_bytes(content.encode())
        examples = read_squad(tmp_path / name)
        assert [example.context for example in examples] == [context] * 2
        assert context.startswith("Four", 19)


def test_ids_are_text_and_made_up_where_there_is_none(tmp_path: Path) -> None:
    assert [example.id for example in read_squad(CASES / "intid.json")] == ["17", "a2"]
    assert [example.id for example in read_squad(CASES / "noid.json")] == ["#1", "a2"]
    ids = (None, "", "#1", "##2", 5, "#2")
    rows = [{"context": "c", "question": "q", "id": given} for given in ids] + [{"context": "c", "question": "q"}]
    found = [example.id for example in read_squad(write(tmp_path, rows))]
    assert found == ["##1", "###2", "#1", "##2", "5", "#2", "#7"]


def test_unanswerable_questions(tmp_path: Path) -> None:
    *answered, third = read_squad(CASES / "v2.json")
    assert answered == [WHO, WHEN]
    assert third == Example("a3", "Who painted the bridge?", TEXT, (), "Velmora", (), is_impossible=True)
    columns: dict[str, object] = {"text": [], "answer_start": []}
    for fields, impossible in (
        ({"answers": columns}, True),  # as `datasets` writes SQuAD v2
        ({"answers": columns, "is_impossible": False}, False),
        ({"answers": []}, False),
        ({}, False),
        ({"is_impossible": True}, True),
        ({"answers": None, "is_impossible": None}, False),
    ):
        (example,) = read_squad(write(tmp_path, [{"id": "1", "context": "c", "question": "q", **fields}]))
        assert (example.is_impossible, example.answers) == (impossible, ())


@pytest.mark.parametrize(
    ("fields", "answers", "impossible"),
    [
        ({"is_impossible": True, "answers": [{"text": "", "answer_start": -1}]}, (), True),
        ({"answers": [{"text": " "}]}, (), False),
        ({"answers": {"text": [""], "answer_start": [0]}}, (), True),
        ({"answers": {"text": [""]}, "is_impossible": False}, (), False),
        ({"answers": [{"text": "", "answer_start": 9}, {"text": "Ada", "answer_start": 0}]}, (("Ada", 0),), False),
        ({"answers": {"text": ["Ada", "\n"], "answer_start": [0, 9]}}, (("Ada", 0),), False),
    ],
)
def test_blank_answers_are_none(
    tmp_path: Path, fields: dict[str, object], answers: tuple[tuple[str, int], ...], impossible: bool
) -> None:
    (example,) = read_squad(write(tmp_path, [{"id": "1", "context": "Ada.", "question": "Who?", **fields}]))
    assert tuple(zip(example.answers, example.answer_starts, strict=True)) == answers
    assert example.is_impossible is impossible


def test_blank_questions_and_contexts_do_not_end_the_reading(tmp_path: Path) -> None:
    rows = [{"context": c, "question": q} for c, q in (("Ada.", "Who?"), (" \n", "Who?"), ("Ada.", ""))]
    assert [(e.context, e.question) for e in read_squad(write(tmp_path, rows))] == [
        ("Ada.", "Who?"),
        (" \n", "Who?"),
        ("Ada.", ""),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}".encode("utf-16"), "squad.json is UTF-16, or no text at all; save it as UTF-8"),
        ('{"data": []}'.encode("utf-16-le"), "squad.json is UTF-16"),
        ('{"data": []}'.encode("utf-32"), "squad.json is UTF-32"),
        (b'{"data": "caf\xe9"}', r"squad.json is not UTF-8 \(byte 0xe9 at 13\); if it is Latin-1"),
        (b'\xef\xbb\xbf{"data": "caf\xe9"}', r"\(byte 0xe9 at 16\)"),
        (gzip.compress(b'{"data": []}' * 99)[:-9], "squad.json is damaged: gzip cannot unpack it"),
        (b"\x1f\x8b\x00", "squad.json is damaged"),
        (b'{"context": "c", "question": "q"}\n\n{"context"\n', "squad.json, line 3 is not JSON"),
        (b'{"context": "c", "question": "q"}\n[]\n', r"squad.json, line 2 must be an object, not \[\]"),
        (b'{"context": "c", "question": "q"}\n{"context": "c"}', "squad.json, line 2 has no text 'question'"),
        (b'{"context": "c"}\n{"context": "c"}', "squad.json, line 1 has no text 'question'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "squad.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_squad(file)


QUESTIONS = st.lists(
    st.fixed_dictionaries(
        {
            "context": st.text(min_size=1, max_size=20).filter(str.strip),
            "question": st.text(min_size=1, max_size=9).filter(str.strip),
            "title": st.sampled_from(["", "T", "Ünlü"]),
            "answers": st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 99)), max_size=3),
        }
    ),
    min_size=1,
    max_size=5,
)


def encodable(questions: list[dict[str, Any]]) -> bool:
    try:
        json.dumps(questions, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    return True


@settings(deadline=None, max_examples=50)
@given(questions=QUESTIONS.filter(encodable), escaped=st.booleans(), compressed=st.booleans(), mark=st.booleans())
def test_every_form_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    questions: list[dict[str, Any]],
    escaped: bool,
    compressed: bool,
    mark: bool,
) -> None:
    listed, columns, nested = [], [], []
    for number, question in enumerate(questions):
        answers: list[tuple[str, int]] = question["answers"]
        as_list = [{"text": text, "answer_start": start} for text, start in answers]
        as_columns = {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}
        row = {"id": str(number), "is_impossible": False, **question}
        listed.append({**row, "answers": as_list})
        columns.append({**row, "answers": as_columns})
        qas = [{"id": number, "question": row["question"], "answers": as_list}]
        nested.append({"title": row["title"], "paragraphs": [{"context": row["context"], "qas": qas}]})
    expected = [
        Example(
            str(number),
            str(row["question"]),
            str(row["context"]),
            tuple(answer["text"] for answer in row["answers"]),
            str(row["title"]),
            tuple(answer["answer_start"] for answer in row["answers"]),
        )
        for number, row in enumerate(listed)
    ]
    file = tmp_path_factory.mktemp("forms") / "data"
    for content in ({"data": nested}, nested, {"version": "0.1", "data": listed}, listed, columns, None):
        rows = columns if content is None else [content]
        text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
        encoded = b"\xef\xbb\xbf" * mark + text.encode()
        file.write_bytes(gzip.compress(encoded) if compressed else encoded)
        assert read_squad(file) == expected
