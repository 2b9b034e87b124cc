"""Tables of comma-separated values, with a header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from dynamic_tinybert.runtime.common.errors import DataError

from .reading import opened
from .table import Kind, Row, Table
from .values import as_text, utf8

MAX_FIELD = 2**27
"""Characters of a field; an unclosed quotation mark would otherwise read the rest of the file as one."""


class CsvFile:
    """A CSV file in UTF-8 whose first record names the columns; all values are texts."""

    def __init__(self, path: Path) -> None:
        """Read the file once, for the number of rows.

        Raises:
            DataError: The file cannot be read, or has no header of different names.
        """
        self.path = path
        self._names = self._header()
        kinds: tuple[Kind, ...] = ("text",)
        self.columns: Mapping[str, Collection[Kind]] = dict.fromkeys(self._names, kinds)
        self.num_rows = sum(1 for _ in self.rows())

    def rows(self, names: Collection[str] | None = None) -> Iterator[Row]:
        """Read the rows; see `Table`."""
        records = self._records()
        next(records)
        number = 0
        for line, fields, error in records:
            if fields or error is not None:
                number += 1
                yield self._row(number, line, fields, error)

    def _header(self) -> list[str]:
        _, names, error = next(self._records(), (1, [], None))
        if error is not None or not names:
            raise DataError(f"{self.path} has no header, a first line that names the columns: {error or 'it is empty'}")
        names = [utf8(name) for name in names]  # first, as names that are not UTF-8 may become the same
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"{self.path} has several columns with the name {twice[0]!r}; give each a name of its own")
        return names

    def _records(self) -> Iterator[tuple[int, list[str], str | None]]:
        """Each record as the line in which it begins, its fields, and what is wrong with it as CSV."""
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
        with opened(self.path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.reader(text, strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, [], f"not CSV: {error}"
                else:
                    yield line, fields, None

    def _row(self, number: int, line: int, fields: list[str], error: str | None) -> Row:
        clean = [utf8(own) for own in fields]
        if error is None and clean != fields:
            error = "not UTF-8"
        if error is None and len(fields) != len(self._names):
            error = f"{len(fields)} fields, but the header names {len(self._names)} columns"
        return Row(number, dict(zip(self._names, clean, strict=False)), error, line)


def write_csv(path: Path, table: Table, new: Mapping[str, Collection[Kind]], added: Iterator[Sequence[object]]) -> None:
    """Write a table with new columns; see `write_table`."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*map(utf8, table.columns), *new])
        for row, values in zip(table.rows(), added, strict=True):
            old = (row.values.get(name) for name in table.columns)
            writer.writerow([as_text(value) for value in chain(old, values)])
