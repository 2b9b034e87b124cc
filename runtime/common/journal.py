"""Results on disk, so that a run that was killed can be resumed without computing anything twice."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .errors import InvalidInputError
from .publish import writing


class Journal:
    """An append-only file of JSON lines: a header that identifies the run, then an entry for each result.

    The file stays readable however the process ends: an entry is on disk when `add` returns, and a line that was cut
    off is dropped when the journal is opened again. A lock keeps other processes out.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        """Open the journal at `path`, or create it.

        Args:
            path: The file; its folder must exist.
            header: JSON values that identify this run: digests of its data, options, seed.

        Raises:
            InvalidInputError: The journal belongs to a run with another header, is damaged or is in use, or the file
                is not a journal.
            StorageError: The file cannot be read or written.
        """
        self.path = Path(path)
        self._entries: dict[str, dict[str, Any]] = {}
        with writing(self.path):
            self._file = self.path.open("a+b", buffering=0)
        try:
            with writing(self.path):
                self._lock()
                self._file.seek(0)
                content = self._file.read()
            self._end = content.rfind(b"\n") + 1
            if self._end:
                first, *lines = content[: self._end - 1].split(b"\n")
                self._check_header(first, header)
                for number, line in enumerate(lines, 2):
                    self._read_entry(number, line)
            elif not _line({"journal": header}).startswith(content):  # a header that was cut off is no error
                raise self._no_journal()
            with writing(self.path):
                self._file.truncate(self._end)
            if not self._end:
                self._append(_line({"journal": header}))
        except BaseException:
            self.close()
            raise

    def get(self, kind: str, key: str) -> Any | None:  # noqa: ANN401 - JSON
        """The value that was last added under `kind` and `key`, with exact floats; None if there is none."""
        return self.all(kind).get(key)

    def all(self, kind: str) -> Mapping[str, Any]:
        """All values of a kind by key, ordered by when each key was first added."""
        return self._entries.get(kind, {})

    def add(self, kind: str, key: str, value: Any) -> None:  # noqa: ANN401 - JSON
        """Write a JSON value to disk.

        Raises:
            StorageError: The value could not be written. The journal is unchanged.
        """
        line = _line({"kind": kind, "key": key, "value": value})
        self._append(line)
        self._entries.setdefault(kind, {})[key] = json.loads(line)["value"]  # as a resumed run will read it

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInputError(
                f"{self.path} is in use by another process; wait until it ends, or name another journal"
            ) from error
        except OSError:  # a file system without locks
            pass

    def _check_header(self, line: bytes, header: Mapping[str, Any]) -> None:
        match _parsed(line):
            case {"journal": dict(found)}:
                pass
            case _:
                raise self._no_journal()
        wanted = json.loads(_line(header))  # as it is read from a file: tuples become lists
        for name in wanted | found:
            if name not in found or name not in wanted or found[name] != wanted[name]:
                raise InvalidInputError(
                    f"{self.path} is the journal of another run: its {name} is {found.get(name)!r}, here it is "
                    f"{wanted.get(name)!r}; use the options and data of that run, or delete the journal to start again"
                )

    def _read_entry(self, number: int, line: bytes) -> None:
        match _parsed(line):
            case {"kind": str(kind), "key": str(key), "value": value}:
                self._entries.setdefault(kind, {})[key] = value
            case _:
                raise InvalidInputError(
                    f"line {number} of {self.path} is damaged: {line[:60]!r}; delete this line to measure its entry "
                    "again, or the file to start again"
                )

    def _no_journal(self) -> InvalidInputError:
        return InvalidInputError(f"{self.path} is not a journal; name another file, or delete it")

    def _append(self, line: bytes) -> None:
        left = memoryview(line)
        with writing(self.path):
            try:
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except BaseException:
                self._file.truncate(self._end)
                raise
        self._end += len(line)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
