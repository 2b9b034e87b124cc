"""What a table is, whatever the format of its file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["text", "bool", "int", "long", "float", "other"]
"""What a value is: "int" if a float can hold it exactly, "long" if only 64 bits can, "other" if it is none of these."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read.

    Attributes:
        number: Position in the table, from 1. The header of a CSV file and empty lines do not count.
        values: By column. A row that could not be read holds what is known of it.
        error: Why the row could not be read; None if it could.
        line: Line of the file in which the row begins, from 1; None if the file has no lines.
    """

    number: int
    values: Mapping[str, object] = field(default_factory=dict)
    error: str | None = None
    line: int | None = None

    @property
    def place(self) -> str:
        """Where the row is, for messages."""
        return f"row {self.number}" if self.line is None else f"row {self.number} (line {self.line})"


class Table(Protocol):
    """A table in a file, which can be read many times."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def num_rows(self) -> int:
        """Number of rows, with those that cannot be read."""

    @property
    def columns(self) -> Mapping[str, Collection[Kind]]:
        """The names of all columns in order, with the kinds of values that were found in each."""

    def rows(self, names: Collection[str] | None = None) -> Iterator[Row]:
        """Read the rows in order; `names` are the columns that are needed, None for all.

        Raises:
            DataError: The file cannot be read.
        """


def kind_of(value: object) -> Kind:
    """The kind of a value that is not None."""
    match value:
        case str():
            return "text"
        case bool():
            return "bool"
        case int() if abs(value) <= 2**53:
            return "int"
        case int() if -(2**63) <= value < 2**63:
            return "long"
        case float():
            return "float"
        case _:
            return "other"
