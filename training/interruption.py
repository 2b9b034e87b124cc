"""SIGINT and SIGTERM during a training."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Self


class Interruption:
    """Notes the first SIGINT or SIGTERM, so that a training can save and stop; a second one ends it at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._restore = ExitStack()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._restore.callback(signal.signal, signum, signal.signal(signum, self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore.close()

    def end(self) -> None:
        """End the process as the signal would have, if there was one: KeyboardInterrupt or SystemExit."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signum is not None:
            raise SystemExit(128 + self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        second, self.signum = self.signum is not None, signum
        if second:
            self.end()
