"""Tables of JSON lines: an object a line."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from .reading import opened
from .table import Kind, Row, Table, kind_of
from .values import json_ready

MAX_DEPTH = 100
"""Levels of lists and objects in a row, which Python's JSON can always read and write."""


class JsonLines:
    """A file of JSON lines in UTF-8; columns may differ from row to row."""

    def __init__(self, path: Path) -> None:
        """Read the file once, for the number of rows and the columns.

        Raises:
            DataError: The file cannot be read.
        """
        self.path = path
        self.num_rows = 0
        columns: dict[str, set[Kind]] = {}
        for row in self.rows():
            self.num_rows += 1
            for name, value in row.values.items():
                kinds = columns.setdefault(name, set())
                if value is not None:
                    kinds.add(kind_of(value))
        self.columns: Mapping[str, Collection[Kind]] = columns

    def rows(self, names: Collection[str] | None = None) -> Iterator[Row]:
        """Read the rows; see `Table`."""
        number = 0
        with opened(self.path) as stream:
            for line_number, line in enumerate(stream, 1):
                if line_number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    number += 1
                    yield _row(number, line, line_number)


def write_json_lines(
    path: Path, table: Table, new: Mapping[str, Collection[Kind]], added: Iterator[Sequence[object]]
) -> None:
    """Write a table with new columns; see `write_table`."""
    with path.open("wb") as stream:
        for row, values in zip(table.rows(), added, strict=True):
            record = json_ready(dict(chain(row.values.items(), zip(new, values, strict=True))))
            stream.write(_line(record))


def _line(record: object) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # lone surrogates
        return json.dumps(record).encode() + b"\n"


def _row(number: int, line: bytes, line_number: int) -> Row:
    try:
        values = json.loads(line.decode(), parse_constant=_not_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        return Row(number, error=f"not UTF-8 (byte 0x{line[error.start]:02x})", line=line_number)
    except (ValueError, RecursionError) as error:
        return Row(number, error=f"not JSON: {error}", line=line_number)
    if not isinstance(values, dict):
        return Row(number, error=f"must be an object, not {line[:60].decode(errors='replace')!r}", line=line_number)
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deep(values):
        return Row(number, error=f"lists and objects are nested more than {MAX_DEPTH} deep", line=line_number)
    return Row(number, values, line=line_number)


def _not_finite(constant: str) -> float:
    raise ValueError(f"{constant} is not a number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        children = (own.values() if isinstance(own, dict) else own for own in level if isinstance(own, dict | list))
        level = list(chain.from_iterable(children))
    return any(isinstance(own, dict | list) for own in level)
