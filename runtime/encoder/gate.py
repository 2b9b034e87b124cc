"""A gate around all work in OpenVINO: requests pass it concurrently, and a fork waits until none is inside."""

from __future__ import annotations

import threading
from functools import partial
from types import TracebackType


class Gate:
    """A shared, reentrant lock that threads hold while they work in OpenVINO; while closed, it lets no thread in."""

    def __init__(self) -> None:
        self._holds: dict[int, int] = {}  # how often each thread inside has entered
        self._changed = threading.Condition()
        self._closer: int | None = None  # the thread that closed it, or is waiting for the last requests
        self._closers_holds = 0

    def __enter__(self) -> None:
        thread = threading.get_ident()
        holds = self._holds.get(thread, 0)
        if not holds:
            with self._changed:
                # The thread that closed the gate gets here only from a signal handler, and must not wait for itself.
                self._changed.wait_for(lambda: self._closer in (None, thread))
                self._holds[thread] = 1
        else:
            self._holds[thread] = holds + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread = threading.get_ident()
        if self._holds[thread] > 1:
            self._holds[thread] -= 1
            return
        with self._changed:
            del self._holds[thread]
            self._changed.notify_all()

    def close(self) -> BaseException | None:
        """Let no other thread in, and wait until none is inside.

        The calling thread's own holds do not count: a signal handler that forks would otherwise wait for ever.

        Returns:
            The exception that a signal handler raised meanwhile, if any. It does not end the wait, because a fork
            cannot be cancelled.
        """
        thread = threading.get_ident()
        own = 0
        raised: BaseException | None = None
        while True:
            try:
                with self._changed:
                    own = self._holds.get(thread, own)
                    self._holds.pop(thread, None)
                    self._changed.notify_all()
                    self._changed.wait_for(partial(self._is_closed_by, thread, own))
                return raised
            except BaseException as error:
                raised = error

    def _is_closed_by(self, thread: int, own: int) -> bool:
        if self._closer not in (None, thread):  # another thread forks
            return False
        self._closer, self._closers_holds = thread, own
        return not self._holds

    def is_closed_here(self) -> bool:
        """Whether the calling thread has closed the gate and not opened it again."""
        return self._closer == threading.get_ident()

    def open(self) -> None:
        """Let other threads in again; does nothing unless the calling thread closed the gate."""
        thread = threading.get_ident()
        with self._changed:
            if not self.is_closed_here():
                return
            if self._closers_holds:
                self._holds[thread] = self._closers_holds
            self._closer, self._closers_holds = None, 0
            self._changed.notify_all()

    def open_in_child(self) -> None:
        """Like `open`, for a forked process: the other threads are gone, so their locks and holds are discarded."""
        self._changed = threading.Condition()
        self._holds = {}
        self.open()


gate = Gate()
"""The gate of this process."""
