"""Tables by the suffixes of their files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.common.publish import writing

from .csv_file import CsvFile, write_csv
from .json_lines import JsonLines, write_json_lines
from .parquet import ParquetFile, require_pyarrow, write_parquet
from .table import Kind, Table

_READERS: Mapping[str, Callable[[Path], Table]] = {".jsonl": JsonLines, ".csv": CsvFile, ".parquet": ParquetFile}
_WRITERS = {".jsonl": write_json_lines, ".csv": write_csv, ".parquet": write_parquet}


def check_format(path: Path) -> None:
    """Check that a file's suffix names a format that can be read and written here.

    Raises:
        InvalidInputError: It does not.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    if _format(path) not in _READERS:
        *others, last = _READERS
        raise InvalidInputError(f"{path} must end with {', '.join(others)} or {last}, which tells its format")
    if _format(path) == ".parquet":
        require_pyarrow()


def open_table(path: Path) -> Table:
    """Open the table in a file.

    Raises:
        DataError: The file cannot be read.
        InvalidInputError: Its suffix names no format.
        MissingExtraError: It is a Parquet file, and pyarrow is not installed.
    """
    check_format(path)
    if path.exists() and not path.is_file():
        raise DataError(f"cannot read {path}: it is not a file")
    return _READERS[_format(path)](path)


def write_table(
    path: Path, table: Table, new: Mapping[str, Collection[Kind]], added: Iterator[Sequence[object]]
) -> None:
    """Write a table with new columns behind its own, row by row, in the format that the path's suffix names.

    JSON lines hold values as they are. In CSV, and in a Parquet column whose values have no common type, everything but
    text is JSON. A Parquet file's columns keep their types in another Parquet file; elsewhere its times and decimals
    are text, and its bytes base64.

    Args:
        path: The file to write.
        table: The table.
        new: The new columns, with the kinds of their values; none of the table's own has such a name.
        added: Their values for each row, in this order.

    Raises:
        DataError: The table's file cannot be read.
        StorageError: `path` cannot be written.
    """
    with writing(path):
        _WRITERS[_format(path)](path, table, new, added)


def _format(path: Path) -> str:
    return path.suffix.lower()
