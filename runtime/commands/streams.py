"""Standard input and output of commands: UTF-8 in, and output that can fail without a traceback."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys

from dynamic_tinybert.runtime.common.errors import StorageError

CLOSED_PIPE = 141
"""Exit code if the reader of standard output has gone; shells report the same for a process that SIGPIPE ended."""


def read_input() -> str:
    """Read all of standard input as UTF-8, whatever the locale is.

    Line ends are kept; a byte-order mark at the start is removed.

    Raises:
        OSError: Standard input is closed or cannot be read.
        UnicodeDecodeError: The input is not UTF-8.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read().decode("utf-8-sig")


def guard_output() -> None:
    r"""Replace `sys.stdout`: characters that its encoding lacks are written as \uXXXX, and errors have clear types.

    Writing raises `StorageError` if the output is full or closed, and SystemExit if it is a pipe that nobody reads.
    """
    codecs.register_error("dynamic_tinybert.escape", _escape)
    stdout = sys.stdout
    target = None if stdout is None else stdout.fileno()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(target)),
        encoding="utf-8" if stdout is None else stdout.encoding,
        errors="dynamic_tinybert.escape",
        line_buffering=stdout is not None and bool(stdout.line_buffering),
    )


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escapes that are also valid JSON, in which only strings contain characters other than ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(rf"\u{units[i : i + 4]}" for i in range(0, len(units), 4)), error.end


class _Output(io.RawIOBase):
    """Writes to a file descriptor. Reports one failure at most, because Python tries to write the rest at exit."""

    def __init__(self, target: int | None) -> None:
        self._target = target
        self._has_failed = False

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        if self._has_failed:
            return len(data)
        try:
            if self._target is None:
                raise OSError(errno.EBADF, "it is closed")
            return os.write(self._target, data)
        except BrokenPipeError:
            self._has_failed = True
            raise SystemExit(CLOSED_PIPE) from None
        except OSError as error:
            self._has_failed = True
            raise StorageError(f"standard output cannot be written: {error.strerror}") from error

    def fileno(self) -> int:
        if self._target is None:
            raise io.UnsupportedOperation("standard output is closed")
        return self._target

    def isatty(self) -> bool:
        return self._target is not None and os.isatty(self._target)

    def writable(self) -> bool:
        return True
