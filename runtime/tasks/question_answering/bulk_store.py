"""The finished blocks of a bulk run on disk, so that a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.common.publish import sync, writing

from .bulk import AnsweredRow


class BulkStore:
    """A work folder with a line for each answered row in ``answers.jsonl``, and an entry for each block in a journal.

    A block counts once its entry is in the journal, which is written when the rows are on disk; rows without an entry
    are dropped when the folder is opened again.

    Attributes:
        num_blocks: Finished blocks.
        num_rows: Their rows.
        num_errors: Those of the rows that cannot be answered.
        is_published: Whether the output took its place already; a run that was killed then has only this folder left.
    """

    def __init__(self, folder: Path, output: Path, header: Mapping[str, Any]) -> None:
        """Open a work folder, or begin in an empty one.

        Args:
            folder: The work folder; it exists.
            output: The file that the run writes in the end, in the same file system.
            header: JSON values that identify the run.

        Raises:
            InvalidInputError: The folder belongs to another run, is damaged or is in use by another process.
            StorageError: A file cannot be read or written.
        """
        self._output = output
        self._made = folder / f"output{output.suffix}"
        self._file = folder / "answers.jsonl"
        self._journal = Journal(folder / "journal.jsonl", header)
        try:
            blocks = list(self._journal.all("block").values())
            self.num_blocks = len(blocks)
            self.num_rows = sum(block["rows"] for block in blocks)
            self.num_errors = sum(block["errors"] for block in blocks)
            self._end: int = blocks[-1]["end"] if blocks else 0
            self.is_published = self._is_made() and not self._made.exists()
            if not self.is_published:
                self._drop_unfinished()
        except BaseException:
            self._journal.close()
            raise

    def add(self, rows: Sequence[AnsweredRow]) -> None:
        """Write the rows of the next block to disk.

        Raises:
            StorageError: They cannot be written.
        """
        lines = b"".join(json.dumps([row.answers, row.error]).encode() + b"\n" for row in rows)
        with writing(self._file), self._file.open("ab") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
        self._end += len(lines)
        errors = sum(row.error is not None for row in rows)
        self._journal.add("block", str(self.num_blocks), {"rows": len(rows), "errors": errors, "end": self._end})
        self.num_blocks += 1
        self.num_rows += len(rows)
        self.num_errors += errors

    def rows(self) -> Iterator[AnsweredRow]:
        """All rows of the finished blocks, in order."""
        with self._file.open("rb") as stream:
            for line in stream:
                yield AnsweredRow(*json.loads(line))

    def publish(self, write: Callable[[Path], None]) -> None:
        """Let the complete output take its place, and replace what is there.

        Args:
            write: Writes the output to the path that it is given.

        Raises:
            StorageError: The output cannot be written.
        """
        if not self._is_made():
            write(self._made)
            with writing(self._made):
                sync(self._made)
            self._journal.add("output", "made", True)
        with writing(self._output):
            self._made.replace(self._output)
            sync(self._output.parent)
            self._file.unlink()  # so that the journal is the last file that is deleted: it tells what happened
        self.is_published = True

    def close(self) -> None:
        """Close the journal and release its lock."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _is_made(self) -> bool:
        return self._journal.get("output", "made") is not None

    def _drop_unfinished(self) -> None:
        """Cut off rows of a block that was not finished."""
        with writing(self._file), self._file.open("ab") as stream:
            if stream.tell() < self._end:
                raise InvalidInputError(f"{self._file} has lost its end; delete {self._file.parent} to begin anew")
            stream.truncate(self._end)
