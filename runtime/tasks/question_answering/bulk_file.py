"""Answer all rows of a file, and go on after any interruption."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dynamic_tinybert.runtime.bundles.files import MANIFEST
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.common.work_dir import digest, work_dir
from dynamic_tinybert.runtime.tables.files import check_format, open_table, write_table
from dynamic_tinybert.runtime.tables.table import Table
from dynamic_tinybert.runtime.tables.values import utf8

from .bulk import BLOCK_CHARACTERS, BLOCK_ROWS, BulkAnswerer, new_columns
from .bulk_store import BulkStore

SHOWN_ERRORS = 10
"""Rows with an error that are named; the others are only counted."""


@dataclass(frozen=True)
class BulkFiles:
    """The files of a bulk run: `source` is read, `output` is written, `folder` keeps what has been answered."""

    source: Path
    output: Path
    force: bool

    @property
    def folder(self) -> Path:
        """The work folder, beside the output."""
        return self.output.with_name(f"{self.output.name}.answering")

    @classmethod
    def checked(cls, source: Path, output: Path, *, resume: bool = False, force: bool = False) -> BulkFiles:
        """Check the paths before anything is loaded.

        Args:
            source: The file with the questions.
            output: The file to write.
            resume: Whether an interrupted run may be continued.
            force: Replace an existing output.

        Raises:
            DataError: The source is not there.
            InvalidInputError: A suffix names no format, the output is in the way or cannot be placed, or an interrupted
                run is there and is not to be resumed.
            MissingExtraError: A file is Parquet, and pyarrow is not installed.
        """
        for path in (source, output):
            check_format(path)
        if not source.exists():
            raise DataError(f"cannot read {source}: No such file or directory")
        output = output.resolve()
        if not output.parent.is_dir():
            raise InvalidInputError(f"there is no folder {output.parent} to write {output.name} to")
        files = cls(source, output, force)
        if output.is_dir():
            raise InvalidInputError(f"{output} is a folder; give another path")
        if output.exists() and output.samefile(source):
            raise InvalidInputError(f"the output {output} is the input itself; give another path")
        if files.folder.exists() and not resume:
            raise files.unfinished
        if not files.folder.exists():
            files.refuse_taken()
        return files

    @property
    def unfinished(self) -> InvalidInputError:
        """The error to raise for an interrupted run that is not to be resumed."""
        return InvalidInputError(
            f"{self.folder} holds an interrupted run; continue it with --resume, or delete it to start again"
        )

    def refuse_taken(self) -> None:
        """Raise InvalidInputError if the output is there and must not be replaced."""
        if self.output.exists() and not self.force:
            raise InvalidInputError(f"{self.output} exists already; give another path, or replace it with --force")


@dataclass(frozen=True)
class BulkResult:
    """What a bulk run wrote: `num_rows`, of which `num_errors` have an error instead of an answer."""

    num_rows: int
    num_errors: int


def answer_file(
    answerer: BulkAnswerer,
    files: BulkFiles,
    *,
    prefix: str = "",
    resume: bool = False,
    strict: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> BulkResult:
    """Answer all rows of a file; the output has the same rows and columns, in the same order, and the answers.

    Rows are answered in blocks. Finished blocks are kept in a folder beside the output until the output is complete, so
    that a run that was interrupted in any way, SIGKILL included, can be resumed. Then the output appears at once.

    Args:
        answerer: Answers the rows.
        files: The files.
        prefix: Is put before the names of the new columns: those of `ANSWER_COLUMNS` and, if several answers are asked
            for, ``answers`` with all of them.
        resume: Continue an interrupted run, if there is one.
        strict: Raise an error, before anything is answered, for a row that cannot be answered.
        progress: Show a progress bar with the time left on standard error.
        say: Receives a line for each of the first rows that cannot be answered.

    Raises:
        DataError: The input cannot be read or lacks a column, or `strict` refuses a row.
        InvalidInputError: The output exists; an unfinished run is there and `resume` is not set, or had other options;
            a new column has the name of an old one.
        StorageError: A file cannot be written.
    """
    before = _state(files.source)
    table = open_table(files.source)
    _check_columns(table, answerer, prefix)
    if strict:
        _refuse_bad_rows(table, answerer)
    header = _header(table, answerer, prefix)
    with (
        work_dir(files.folder, resume=resume, error_if_exists=files.unfinished) as folder,
        BulkStore(folder, files.output, header) as store,
    ):
        if not store.is_published:
            files.refuse_taken()
            _answer_blocks(table, answerer, store, progress, say)
            if store.num_rows != table.num_rows or _state(files.source) != before:
                raise DataError(f"{files.source} has changed while it was being read; start again")
            new = {f"{prefix}{name}": kinds for name, kinds in new_columns(answerer.options).items()}
            files.refuse_taken()
            store.publish(lambda path: write_table(path, table, new, _values(store, answerer)))
        return BulkResult(store.num_rows, store.num_errors)


def _state(path: Path) -> tuple[int, ...]:
    """Changes when the file does."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_columns(table: Table, answerer: BulkAnswerer, prefix: str) -> None:
    for name in answerer.columns.names:
        if name not in table.columns and (table.num_rows or table.columns):
            why = next((f"; {row.place}: {row.error}" for row in table.rows() if row.error is not None), "")
            has = f"its columns are {', '.join(map(repr, table.columns))}" if table.columns else "it has none at all"
            raise DataError(f"{table.path} has no column {name!r}; {has}{why}")
    if utf8(prefix) != prefix:  # bytes of a command line; CSV and Parquet could not be written in the end
        raise InvalidInputError(f"the prefix {prefix!r} is not valid Unicode text; give another --prefix")
    for name in new_columns(answerer.options):
        if f"{prefix}{name}" in table.columns:
            raise InvalidInputError(
                f"{table.path} has a column {prefix + name!r} already; give --prefix, which is put before the names of "
                "the new columns"
            )


def _refuse_bad_rows(table: Table, answerer: BulkAnswerer) -> None:
    for row in table.rows(answerer.columns.names):
        try:
            answerer.windows_of(row)
        except InvalidInputError as error:
            raise DataError(f"{table.path}, {answerer.columns.place(row)}: {error}; --strict refuses it") from error


def _header(table: Table, answerer: BulkAnswerer, prefix: str) -> dict[str, object]:
    """What must be the same for a run to be resumed."""
    return {
        "input": digest(table.path),
        "bundle": digest(answerer.model.bundle.path / MANIFEST),
        "columns": asdict(answerer.columns),
        "prefix": prefix,
        "length_config": answerer.length_config,
        "options": asdict(answerer.options),
        "blocks": [BLOCK_ROWS, BLOCK_CHARACTERS],
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino")},
    }


def _answer_blocks(
    table: Table, answerer: BulkAnswerer, store: BulkStore, progress: bool, say: Callable[[str], None]
) -> None:
    """Answer the blocks that the store does not have yet."""
    shown = 0
    seconds = 0.1 if sys.stderr is not None and sys.stderr.isatty() else 60  # between lines of a log
    options: dict[str, Any] = {"unit": "row", "mininterval": seconds, "disable": not progress or sys.stderr is None}
    with tqdm(total=table.num_rows, initial=store.num_rows, **options) as bar:
        blocks = answerer.blocks(table.rows(answerer.columns.names))
        for block, answered in answerer.answer_all(islice(blocks, store.num_blocks, None)):
            store.add(answered)
            for row, found in zip(block, answered, strict=True):
                if found.error is not None and shown < SHOWN_ERRORS:
                    say(f"{table.path.name}, {answerer.columns.place(row)}: {found.error}")
                    shown += 1
            bar.update(len(block))


def _values(store: BulkStore, answerer: BulkAnswerer) -> Iterator[list[object]]:
    """The values of the new columns, row by row."""
    for row in store.rows():
        yield row.values(answerer.options)
