"""Read labelled texts and pairs of texts: TSV without a header, JSON lines, CSV and Parquet."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tables.files import open_table
from dynamic_tinybert.runtime.tables.reading import opened
from dynamic_tinybert.runtime.tables.table import Row
from dynamic_tinybert.runtime.tasks.findings import Finding

from .example import Example, Label
from .findings import Kind
from .labels import Labels

TEXT, TEXT_PAIR, LABEL, GROUP = COLUMNS = ("text", "text_pair", "label", "group")
"""The columns that are read."""


def read_texts(path: str | Path, labels: Labels, *, limit: int | None = None) -> tuple[list[Example], list[Finding]]:
    """Read the texts of a file, in the order of the file.

    A file that ends in ``.tsv`` has no header, and on each line a text and its label, or two texts and a label,
    separated by tabs; a single text without a label is allowed. Quotation marks have no meaning. A file that ends in
    ``.jsonl``, ``.csv`` or ``.parquet`` has the columns ``text`` and optionally ``text_pair``, ``label``, ``group``. An
    empty ``text_pair`` in CSV, which has no other way to say so, means that there is none.

    A label is the name of a class in config.json or its index. Where the names are numbers, a text is a name and a
    number an index. For a model with one output it is a number, and for one whose labels go together a list of them (in
    TSV and CSV separated by commas).

    Args:
        path: The file.
        labels: The labels of the model.
        limit: Maximum number of rows to read.

    Returns:
        The examples, and the problems of rows: those that cannot be read are left out, unknown labels are None.

    Raises:
        DataError: The file cannot be read, has no column ``text``, or contains no text that can be read.
        InvalidInputError: `limit` is less than 1, or the file's suffix tells no format.
    """
    if limit is not None:
        require_int("limit", limit, 1)
    path = Path(path)
    examples, findings = [], []
    for row in islice(_rows(path), limit):
        read = _example(row, labels)
        if isinstance(read, Finding):
            findings.append(read)
            continue
        examples.append(read)
        if read.label is None and not _is_missing(row.values.get(LABEL)):
            known = ", ".join(labels.names[:8]) if labels.kind != "score" else "numbers"
            why = f"the label {row.values[LABEL]!r:.60} is none of the model's: {known}"
            findings.append(Finding(Kind.UNKNOWN_LABEL, row.place, why))
    if not examples:
        raise DataError(f"{path} holds no text that can be read" + (f"; {findings[0]}" if findings else ""))
    return examples, findings


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() == ".tsv":
        return _tab_separated(path)
    table = open_table(path)
    if table.columns and TEXT not in table.columns:
        raise DataError(f"{path} has no column {TEXT!r}; its columns are: {', '.join(table.columns)}")
    rows = table.rows(COLUMNS)
    return map(_without_empty_pair, rows) if path.suffix.lower() == ".csv" else rows


def _without_empty_pair(row: Row) -> Row:
    """A row of CSV, whose second text is None if its cell is empty."""
    return replace(row, values={**row.values, TEXT_PAIR: None}) if _is_missing(row.values.get(TEXT_PAIR)) else row


def _tab_separated(path: Path) -> Iterator[Row]:
    number = 0
    with opened(path) as stream:
        for line_number, line in enumerate(stream, 1):
            line = (line.removeprefix(codecs.BOM_UTF8) if line_number == 1 else line).rstrip(b"\r\n")
            if line:
                number += 1
                yield _fields(number, line_number, line)


def _fields(number: int, line_number: int, line: bytes) -> Row:
    try:
        fields = line.decode().split("\t")
    except UnicodeDecodeError as error:
        return Row(number, error=f"not UTF-8 (byte 0x{line[error.start]:02x})", line=line_number)
    names: Mapping[int, Collection[str]] = {1: (TEXT,), 2: (TEXT, LABEL), 3: (TEXT, TEXT_PAIR, LABEL)}
    if len(fields) not in names:
        why = f"{len(fields)} fields, but a line has a text and a label, or two texts and a label"
        return Row(number, error=why, line=line_number)
    return Row(number, dict(zip(names[len(fields)], fields, strict=True)), line=line_number)


def _example(row: Row, labels: Labels) -> Example | Finding:
    text, text_pair, group = (row.values.get(name) for name in (TEXT, TEXT_PAIR, GROUP))
    why = row.error
    if why is None and not isinstance(text, str):
        why = "it has no text" if text is None else f"its text is {text!r:.60}, and not text"
    if why is None and not isinstance(text_pair, str | None):
        why = f"its text_pair is {text_pair!r:.60}, and not text"
    if why is not None or not isinstance(text, str) or not isinstance(text_pair, str | None):
        return Finding(Kind.UNREADABLE, row.place, str(why))
    named = "" if group is None else str(group)
    return Example(row.place, text, text_pair, _label(row.values.get(LABEL), labels), named)


def _is_missing(given: object) -> bool:
    return given is None or (isinstance(given, str) and not given.strip())


def _label(given: object, labels: Labels) -> Label | None:
    """The label in the terms of the model; None if there is none or it is unknown."""
    if _is_missing(given) or isinstance(given, bool):
        return None
    if labels.kind == "score":
        return _number(given)
    if labels.kind == "classes":
        return _index(given, labels)
    parts: list[object] = [given]
    if isinstance(given, str):
        parts = [*given.split(",")]
    elif isinstance(given, list | tuple):
        parts = [*given]
    indices = [_index(part, labels) for part in parts]
    known = frozenset(index for index in indices if index is not None)
    return known if None not in indices else None


def _number(given: object) -> float | None:
    if not isinstance(given, str | int | float):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None  # not NaN either


def _index(given: object, labels: Labels) -> int | None:
    """Index of a class, given its name or its index."""
    if isinstance(given, str):
        given = given.strip()
        if given in labels.names:
            return labels.names.index(given)
    number = _number(given)
    return int(number) if number is not None and number in range(len(labels)) else None
