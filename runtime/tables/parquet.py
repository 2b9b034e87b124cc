"""Tables in Parquet files, through pyarrow, which is an optional part of the installation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.common.errors import DataError, MissingExtraError

from .table import Kind, Row, Table
from .values import as_text, utf8

CHUNK_ROWS = 1024
"""Rows that are read at once."""
ROW_GROUP_BYTES = 64 * 2**20
"""Size in memory of the row groups that are written."""


def require_pyarrow() -> None:
    """Raise MissingExtraError if pyarrow is not installed."""
    _arrow("parquet")


class ParquetFile:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            DataError: The file cannot be read, or two columns have the same name.
            MissingExtraError: pyarrow is not installed.
        """
        self.path = path
        with self._opened() as file:
            self.schema = file.schema_arrow
            self.num_rows: int = file.metadata.num_rows
        twice = [name for name, count in Counter(self.schema.names).items() if count > 1]
        if twice:
            raise DataError(f"{path} has several columns with the name {twice[0]!r}; give each a name of its own")
        kinds: tuple[Kind, ...] = ("other",)
        self.columns: Mapping[str, Collection[Kind]] = dict.fromkeys(self.schema.names, kinds)

    def rows(self, names: Collection[str] | None = None) -> Iterator[Row]:
        """Read the rows; see `Table`."""
        number = 0
        for batch in self.batches(None if names is None else [name for name in self.columns if name in names]):
            values = [
                self._values(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            for i in range(batch.num_rows):
                number += 1
                yield Row(number, {name: own[i] for name, own in zip(batch.schema.names, values, strict=True)})

    def batches(self, names: Sequence[str] | None = None) -> Iterator[Any]:
        """The rows as Arrow's record batches."""
        with self._opened() as file:
            yield from file.iter_batches(batch_size=CHUNK_ROWS, columns=names)

    def _values(self, name: str, column: Any) -> list[object]:  # noqa: ANN401 - an Arrow array
        try:
            return python_values(column)
        except (_arrow().ArrowException, ValueError, OverflowError) as error:  # values that Python cannot hold
            raise DataError(
                f"cannot read column {name!r} of {self.path}, of type {column.type}: {_first_line(error)}"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with _arrow("parquet").ParquetFile(self.path) as file:
                yield file
        except (OSError, _arrow().ArrowException) as error:  # ArrowInvalid is a ValueError, too
            raise DataError(f"cannot read {self.path}: {_first_line(error)}") from error


def write_parquet(
    path: Path, table: Table, new: Mapping[str, Collection[Kind]], added: Iterator[Sequence[object]]
) -> None:
    """Write a table with new columns; see `write_table`. Columns of a Parquet file keep their types."""
    arrow, parquet = _arrow(), _arrow("parquet")
    old = table.schema if isinstance(table, ParquetFile) else _schema(table.columns)
    schema = arrow.schema([*old, *_schema(new)], metadata=old.metadata)
    batches = table.batches() if isinstance(table, ParquetFile) else _batches(table, old)
    with parquet.ParquetWriter(path, schema) as writer:
        group: list[Any] = []
        size = 0
        for batch in batches:
            if not batch.num_rows:
                continue
            columns = arrow_columns(new, list(islice(added, batch.num_rows)))
            group.append(arrow.RecordBatch.from_arrays([*batch.columns, *columns.values()], schema=schema))
            size += group[-1].nbytes
            if size > ROW_GROUP_BYTES:
                writer.write_table(arrow.Table.from_batches(group))
                group, size = [], 0
        if group:
            writer.write_table(arrow.Table.from_batches(group))


def arrow_columns(new: Mapping[str, Collection[Kind]], rows: Sequence[Sequence[object]]) -> dict[str, Any]:
    """Columns as Arrow's arrays, each of the type that holds its kinds of values, also where all values are None.

    Args:
        new: The names of the columns, with the kinds of their values.
        rows: The values, row by row, in the order of the columns.
    """
    fields = _schema(new)
    return {field.name: _array([row[i] for row in rows], field.type) for i, field in enumerate(fields)}


def _arrow(module: str = "") -> Any:  # noqa: ANN401 - a module that may be missing
    try:
        return import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow, which is not installed; run: pip install 'dynamic-tinybert[parquet]'"
        ) from error


def python_values(column: Any) -> list[object]:  # noqa: ANN401 - an Arrow array
    """Python's values of a column; times and decimals as text, which loses nothing, also in lists and structs."""
    kind = _without_times(column.type)
    if kind != column.type:
        column = column.cast(kind)
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_text(value) for value in column.cast(_arrow().binary()).to_pylist()]
    return values


def _without_times(kind: Any) -> Any:  # noqa: ANN401 - Arrow types
    """A type with text in the place of times and decimals, and integers in that of durations."""
    arrow, types = _arrow(), _arrow("types")
    if types.is_duration(kind):
        return arrow.int64()
    if types.is_temporal(kind) or types.is_decimal(kind):
        return arrow.string()
    if types.is_dictionary(kind):
        inner = _without_times(kind.value_type)
        return kind if inner == kind.value_type else inner
    if types.is_map(kind):
        return arrow.map_(_without_times(kind.key_type), _without_times(kind.item_type))
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return arrow.struct([field.with_type(_without_times(field.type)) for field in fields])
    if types.is_fixed_size_list(kind):
        return arrow.list_(kind.value_field.with_type(_without_times(kind.value_type)), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        make = arrow.list_ if types.is_list(kind) else arrow.large_list
        return make(kind.value_field.with_type(_without_times(kind.value_type)))
    return kind


def _text(value: bytes | None) -> str | None:
    """A text that may not be UTF-8; what is not becomes a lone surrogate, which no tokenizer takes."""
    return None if value is None else value.decode(errors="surrogateescape")


def _schema(columns: Mapping[str, Collection[Kind]]) -> Any:  # noqa: ANN401 - an Arrow schema
    """The types of columns that do not come from Parquet."""
    return _arrow().schema([(utf8(name), _type(set(kinds))) for name, kinds in columns.items()])


def _type(kinds: set[Kind]) -> Any:  # noqa: ANN401 - an Arrow type
    """The type that holds these kinds of values exactly; text if there is none."""
    arrow = _arrow()
    if kinds == {"bool"}:
        return arrow.bool_()
    if kinds and kinds <= {"int", "long"}:
        return arrow.int64()
    return arrow.float64() if kinds and kinds <= {"int", "float"} else arrow.string()


def _batches(table: Table, schema: Any) -> Iterator[Any]:  # noqa: ANN401
    """The rows of a table of another format as record batches."""
    rows = table.rows()
    while chunk := list(islice(rows, CHUNK_ROWS)):
        arrays = [
            _array([row.values.get(name) for row in chunk], field.type)
            for name, field in zip(table.columns, schema, strict=True)
        ]
        yield _arrow().RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[object], kind: Any) -> Any:  # noqa: ANN401 - an Arrow array
    if kind == _arrow().string():
        values = [as_text(value) for value in values]
    return _arrow().array(values, kind)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
