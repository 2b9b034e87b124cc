"""Labelled texts in files: formats, labels, and rows that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.tasks.sequence_classification.example import Label, group_of
from dynamic_tinybert.runtime.tasks.sequence_classification.findings import Kind
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels
from dynamic_tinybert.runtime.tasks.sequence_classification.measure import TextMeasure
from dynamic_tinybert.runtime.tasks.sequence_classification.text_files import read_texts
from dynamic_tinybert.runtime.tasks.sequence_classification.tokens import TextTokenizer

from support.tiny import tiny_tokenizer

TWO = Labels(("bad", "good"))
STARS = Labels(("1", "2", "3"))
ONE = Labels(("LABEL_0",))
SEVERAL = Labels(("red", "round", "sweet"), "multi_label_classification")
MEASURE = TextMeasure(TextTokenizer(tiny_tokenizer(), 16), TWO)


def test_tab_separated_lines(tmp_path: Path) -> None:
    file = tmp_path / "texts.tsv"
    file.write_bytes(
        b'\xef\xbb\xbfthe "cat\t1\r\nwho ?\tthe cat\tbad\n\nalone\nthe\t\nodd\tgood\t1\t2\nx\t7\n\xff\t1\n'
    )
    examples, findings = read_texts(file, TWO)
    assert [(e.id, e.text, e.text_pair, e.label) for e in examples] == [
        ("row 1 (line 1)", 'the "cat', None, 1),
        ("row 2 (line 2)", "who ?", "the cat", 0),
        ("row 3 (line 4)", "alone", None, None),
        ("row 4 (line 5)", "the", None, None),
        ("row 6 (line 7)", "x", None, None),
    ]
    assert [(f.kind, f.id) for f in findings] == [
        (Kind.UNREADABLE, "row 5 (line 6)"),
        (Kind.UNKNOWN_LABEL, "row 6 (line 7)"),
        (Kind.UNREADABLE, "row 7 (line 8)"),
    ]
    assert str(findings[1]) == "row 6 (line 7): the label '7' is none of the model's: bad, good"
    assert "4 fields" in findings[0].why
    assert "not UTF-8" in findings[2].why
    assert len(read_texts(file, TWO, limit=2)[0]) == 2
    with pytest.raises(InvalidInputError, match="limit"):
        read_texts(file, TWO, limit=0)


def test_the_same_rows_in_every_format(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "who ?", "text_pair": "the, cat", "label": "good", "group": "g1"},
        {"text": "what\tnow", "text_pair": "dog", "label": "bad", "group": "g2"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text(
        'label,text,text_pair,group,more\ngood,who ?,"the, cat",g1,x\nbad,what\tnow,dog,g2,\n'
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [read_texts(tmp_path / f"a.{suffix}", TWO) for suffix in ("jsonl", "csv", "parquet")]
    for examples, findings in read:
        assert [(e.text, e.text_pair, e.label, group_of(e)) for e in examples] == [
            ("who ?", "the, cat", 1, "g1"),
            ("what\tnow", "dog", 0, "g2"),
        ]
        assert findings == []


def test_an_empty_second_text_is_none_in_csv_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,text_pair,label\nwho,the cat,1\nalone,,0\nquoted,"",1\nblank, ,1\n')
    examples, findings = read_texts(tmp_path / "a.csv", TWO)
    assert [(e.text, e.text_pair) for e in examples] == [
        ("who", "the cat"),
        ("alone", None),
        ("quoted", None),
        ("blank", None),
    ]
    assert findings == []
    read = MEASURE.read(tmp_path / "a.csv", strict=True)
    assert len(read.examples) == 4
    (tmp_path / "a.jsonl").write_text('{"text": "who", "text_pair": ""}\n{"text": "alone", "text_pair": null}\n')
    examples, _ = read_texts(tmp_path / "a.jsonl", TWO)
    assert [e.text_pair for e in examples] == ["", None]
    read = MEASURE.read(tmp_path / "a.jsonl", strict=False)
    assert [e.text for e in read.examples] == ["alone"]


@pytest.mark.parametrize(
    ("labels", "given", "label"),
    [
        (TWO, "good", 1),
        (TWO, " 1 ", 1),
        (TWO, 1, 1),
        (TWO, 1.0, 1),
        (TWO, 0.5, None),
        (TWO, 2, None),
        (TWO, -1, None),
        (TWO, True, None),
        (TWO, ["good"], None),
        (TWO, "nan", None),
        (STARS, "1", 0),  # a name
        (STARS, 1, 1),  # an index
        (ONE, "2.5", 2.5),
        (ONE, 3, 3.0),
        (ONE, "inf", None),
        (ONE, "much", None),
        (SEVERAL, ["red", 2], frozenset({0, 2})),
        (SEVERAL, "red, round", frozenset({0, 1})),
        (SEVERAL, [], frozenset()),
        (SEVERAL, ["red", "blue"], None),
        (SEVERAL, 1, frozenset({1})),
    ],
)
def test_labels(tmp_path: Path, labels: Labels, given: object, label: Label | None) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "x", "label": given}))
    ((example,), findings) = read_texts(file, labels)
    assert example.label == label
    assert type(example.label) is type(label)
    assert [finding.kind for finding in findings] == ([Kind.UNKNOWN_LABEL] if label is None else [])


def test_what_is_no_table_of_texts_is_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.jsonl", '{"sentence": "x"}', "no column 'text'; its columns are: sentence"),
        ("b.tsv", "", "holds no text"),
        ("c.jsonl", '{"text": 3}', r"row 1 \(line 1\): its text is 3, and not text"),
        ("d.jsonl", '{"text": "x", "text_pair": 3}', "its text_pair is 3, and not text"),
        ("e.jsonl", '{"text": null}', "it has no text"),
        ("f.jsonl", "[", "not JSON"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=message):
            read_texts(tmp_path / name, TWO)
    with pytest.raises(DataError, match="cannot read"):
        read_texts(tmp_path / "none.tsv", TWO)
    with pytest.raises(InvalidInputError, match="which tells its format"):
        read_texts(tmp_path / "a.txt", TWO)


def test_problems_are_told_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text(f"the cat\t1\nthe\n\x00\t1\n{'a ' * 30}\t0\nx\t9\n")
    read = MEASURE.read(file, strict=False)
    assert [example.text for example in read.examples] == ["the cat", "the", "a " * 30, "x"]
    assert list(read.lines) == [
        "a.tsv: 1 of 5 texts cannot be read (skipped); "
        "the first is row 3 (line 3): text is empty: '\\x00' holds no token",
        "a.tsv: 1 of 5 texts have no label (scored by agreement with full); "
        "the first is row 2 (line 2): it has no label",
        "a.tsv: 1 of 5 texts have a label that the model does not have (scored by agreement with full); "
        "the first is row 5 (line 5): the label '9' is none of the model's: bad, good",
        "a.tsv: 1 of 5 texts are longer than the model reads (cut at the end of the longer text); "
        "the first is row 4 (line 4): its end is not read",
    ]
    with pytest.raises(DataError, match=r"a.tsv, row 5 \(line 5\): the label '9'.*leave out `strict`"):
        MEASURE.read(file, strict=True)
    file.write_text("the cat\nx\n")  # no labels at all
    assert list(MEASURE.read(file, strict=True).lines) == []
    file.write_text(" \t1\n")
    with pytest.raises(DataError, match="holds no text that can be read; row 1"):
        MEASURE.read(file, strict=False)
