"""Tables in files: what is read comes out again, in any format, and what cannot be read says why."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.tables.files import open_table, write_table
from dynamic_tinybert.runtime.tables.table import Row

from support.without_torch import is_installed

SUFFIXES = (".jsonl", ".csv", *([".parquet"] if is_installed("pyarrow") else []))
NEW = {"new": ("int",)}

some_examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = texts.filter(bool).filter(lambda name: name != "new")


def rows_of(path: Path) -> list[Row]:
    return list(open_table(path).rows())


def copied(source: Path, suffix: str) -> Path:
    """The table with a new column that counts its rows."""
    if ".parquet" in (source.suffix, suffix):
        pytest.importorskip("pyarrow")
    target, table = source.with_name(f"target{suffix}"), open_table(source)
    write_table(target, table, NEW, iter([(i,) for i in range(table.num_rows)]))
    return target


def written_csv(path: Path, records: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(records)
    return path


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@some_examples
@given(records=st.lists(st.dictionaries(names, values, max_size=4), max_size=5))
def test_json_lines_stay_what_they_are(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    source = written(tmp_path / "source.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    assert [row.values for row in rows_of(source)] == records
    target = copied(source, ".jsonl")
    lines = target.read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [{**record, "new": i} for i, record in enumerate(records)]


@some_examples
@given(
    header=st.lists(names, min_size=1, max_size=3, unique=True),
    cells=st.lists(st.lists(texts, min_size=3, max_size=3), max_size=5),
    suffix=st.sampled_from(SUFFIXES),
)
def test_csv_keeps_its_texts_in_every_format(
    tmp_path: Path, header: list[str], cells: list[list[str]], suffix: str
) -> None:
    header[0] = header[0].removeprefix("\ufeff") or "a"
    records = [cell[: len(header)] for cell in cells]
    source = written_csv(tmp_path / "source.csv", [header, *records])
    expected = [dict(zip(header, record, strict=True)) for record in records]
    assert [row.values for row in rows_of(source)] == expected
    found = rows_of(copied(source, suffix))
    assert [{name: row.values[name] for name in header} for row in found] == expected
    assert [row.values["new"] for row in found] == [str(i) if suffix == ".csv" else i for i in range(len(records))]


@some_examples
@given(column=st.lists(values, min_size=1, max_size=5))
def test_json_lines_become_columns_of_one_type(tmp_path: Path, column: list[Any]) -> None:
    """Values without a common type become JSON, text stays text; nothing is lost."""
    source = written(tmp_path / "source.jsonl", "".join(json.dumps({"a": value}) + "\n" for value in column))
    found = [row.values["a"] for row in rows_of(copied(source, ".parquet"))]
    assert all(own == value or json.loads(own) == value for own, value in zip(found, column, strict=True))
    assert len({type(own) for own in found if own is not None}) <= 1


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {
            "when": arrow.array([1, None], arrow.timestamp("ns")),
            "price": arrow.array([1, 2]).cast(arrow.decimal128(30, 2)),
            "raw": arrow.array([b"\xff", None]),
            "kind": arrow.array(["a", "b"]).dictionary_encode(),
            "nested": [[{"x": 1.5}], []],
            "wait": arrow.array([5, None], arrow.duration("s")),
            "ratio": [float("inf"), 0.5],
        }
    )
    source = tmp_path / "source.parquet"
    parquet.write_table(table.replace_schema_metadata({"made": "by hand"}), source)
    same = parquet.read_table(copied(source, ".parquet"))
    assert same.drop_columns(["new"]).equals(table)
    assert same["new"].to_pylist() == [0, 1]
    assert same.schema.metadata[b"made"] == b"by hand"
    first, second = [json.loads(line) for line in copied(source, ".jsonl").read_text().splitlines()]
    assert first == {
        "when": "1970-01-01 00:00:00.000000001",
        "price": "1.00",
        "raw": "/w==",
        "kind": "a",
        "nested": [{"x": 1.5}],
        "wait": 5,
        "ratio": None,
        "new": 0,
    }
    assert (second["when"], second["kind"], second["nested"], second["ratio"]) == (None, "b", [], 0.5)
    assert next(csv.DictReader(copied(source, ".csv").open()))["nested"] == '[{"x": 1.5}]'


def test_times_in_lists_and_structs_are_text_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    at = arrow.timestamp("ns")  # nanoseconds, which Python's own times cannot hold
    table = arrow.table(
        {
            "list": arrow.array([[1, None], None], arrow.list_(at)),
            "struct": arrow.array([{"at": 1, "n": 2}, None], arrow.struct([("at", at), ("n", arrow.int8())])),
            "map": arrow.array([[("k", 1)], []], arrow.map_(arrow.string(), at)),
            "waits": arrow.array([[5], []], arrow.list_(arrow.duration("ns"))),
        }
    )
    source = tmp_path / "source.parquet"
    parquet.write_table(table, source)
    assert parquet.read_table(copied(source, ".parquet")).drop_columns(["new"]).equals(table)
    first, second = [json.loads(line) for line in copied(source, ".jsonl").read_text().splitlines()]
    text = "1970-01-01 00:00:00.000000001"
    assert first == {"list": [text, None], "struct": {"at": text, "n": 2}, "map": [["k", text]], "waits": [5], "new": 0}
    assert second == {"list": None, "struct": None, "map": [], "waits": [], "new": 1}


def test_parquet_is_written_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("dynamic_tinybert.runtime.tables.parquet.ROW_GROUP_BYTES", 1)
    source = written(tmp_path / "source.jsonl", "".join(f'{{"a": {i}}}\n' for i in range(3000)))
    target = copied(source, ".parquet")
    assert parquet.ParquetFile(target).metadata.num_row_groups == 3
    assert parquet.read_table(target).to_pydict() == {"a": list(range(3000)), "new": list(range(3000))}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b'{"a": NaN}', "NaN is not a number in JSON"),
        (b'{"a": 1e999}', "too large"),
        (b"[1]", "must be an object, not '[1]"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 0xff)"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100 deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON: maximum recursion"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_json_lines_that_cannot_be_read(tmp_path: Path, line: bytes, why: str) -> None:
    source = written(tmp_path / "source.jsonl", b'\xef\xbb\xbf{"a": 1}\n\n' + line + b'\n{"a": 2}')
    first, bad, last = rows_of(source)
    assert (first.values, last.values) == ({"a": 1}, {"a": 2})
    assert bad.error is not None
    assert why in bad.error
    assert bad.place == "row 2 (line 3)"
    for suffix in SUFFIXES:
        assert len(rows_of(copied(source, suffix))) == 3


def test_lone_surrogates_stay_json(tmp_path: Path) -> None:
    source = written(tmp_path / "source.jsonl", '{"a": "\\ud800é", "b": [[1, 2], {"c": "é"}]}\n')
    target = copied(source, ".jsonl")
    assert json.loads(target.read_bytes()) == {"a": "\ud800é", "b": [[1, 2], {"c": "é"}], "new": 0}
    for suffix in (".csv", ".parquet"):
        assert rows_of(copied(source, suffix))[0].values["a"] == "\ufffdé"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"1", "1 fields, but the header names 2 columns"),
        (b"1,2,3", "3 fields, but the header names 2 columns"),
        (b'"1"x,2', "not CSV"),
        (b"\xff,2", "not UTF-8"),
    ],
)
def test_csv_records_that_cannot_be_read(tmp_path: Path, record: bytes, why: str) -> None:
    source = written(tmp_path / "source.csv", b'\xef\xbb\xbfa,b\r\n"x\ny",1\r\n\r\n' + record + b"\r\n3,4")
    first, bad, last = rows_of(source)
    assert (first.values, last.values) == ({"a": "x\ny", "b": "1"}, {"a": "3", "b": "4"})
    assert bad.error is not None
    assert why in bad.error
    assert bad.place == "row 2 (line 5)"
    for suffix in SUFFIXES:
        assert len(rows_of(copied(source, suffix))) == 3


def test_an_unclosed_quotation_mark_is_an_error_of_its_row(tmp_path: Path) -> None:
    first, bad = rows_of(written(tmp_path / "source.csv", 'a,b\n1,2\n"3,4\n5,6\n'))
    assert first.error is None
    assert bad.error is not None
    assert "unexpected end of data" in bad.error


def test_long_csv_fields_are_read(tmp_path: Path) -> None:
    (row,) = rows_of(written_csv(tmp_path / "source.csv", [["a"], ["x" * 300_000]]))
    assert row.values == {"a": "x" * 300_000}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"", "has no header"),
        ("a.csv", b"a,a\n1,2\n", "several columns with the name 'a'"),
        ("a.csv", b"a\xff,a\xfe\n1,2\n", "several columns with the name 'a\ufffd'"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "is UTF-16"),
        ("a.parquet", b"PAR1 but not really", "cannot read"),
        ("a.parquet", b"", "cannot read"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=why):
        open_table(written(tmp_path / name, content))


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file_cannot_be_read(tmp_path: Path, suffix: str, make: Callable[[Path], None]) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"a{suffix}"
    make(path)
    with pytest.raises(DataError, match=f"cannot read {path}"):
        open_table(path)


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"a\.txt must end with \.jsonl, \.csv or \.parquet"):
        open_table(Path("a.txt"))


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    assert [row.values for row in rows_of(written(tmp_path / "A.CSV", "a\n1\n"))] == [{"a": "1"}]


def test_parquet_text_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    raw = arrow.array([b"good", b"b\xffd", None], arrow.binary())
    text = arrow.Array.from_buffers(arrow.string(), 3, raw.buffers())
    parquet.write_table(arrow.table({"a": text}), tmp_path / "source.parquet")
    assert [row.values["a"] for row in rows_of(tmp_path / "source.parquet")] == ["good", "b\udcffd", None]
