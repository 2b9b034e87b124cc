"""The gate before OpenVINO: requests pass it side by side, and a fork waits until none is inside."""

from __future__ import annotations

import threading
from types import TracebackType


class Gate:
    """Who holds it is at work in OpenVINO; while it is closed, nobody begins. A thread may hold it several times."""

    def __init__(self) -> None:
        self._holds: dict[int, int] = {}  # by thread
        self._changed = threading.Condition()
        self._closing = threading.Lock()
        self._is_closed = False
        self._own_holds = 0

    def __enter__(self) -> None:
        thread = threading.get_ident()
        holds = self._holds.get(thread, 0)
        if not holds:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_closed)
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

    def close(self) -> None:
        """Wait until no other thread is inside, and let nobody in.

        The thread's own holds are no reason to wait, else a signal's handler that forks would wait for ever.
        """
        thread = threading.get_ident()
        with self._changed:
            own = self._holds.pop(thread, 0)
            self._changed.notify_all()
        self._closing.acquire()  # another thread may be forking
        with self._changed:
            self._own_holds = own
            self._is_closed = True
            self._changed.wait_for(lambda: not self._holds)

    def open(self) -> None:
        """Let the others in again; for the thread that closed."""
        with self._changed:
            self._is_closed = False
            if self._own_holds:
                self._holds[threading.get_ident()] = self._own_holds
            self._changed.notify_all()
        self._closing.release()

    def open_in_child(self) -> None:
        """The same in a forked process, where the other threads are gone with the locks that they had."""
        self._changed = threading.Condition()
        self._closing = threading.Lock()
        self._closing.acquire()
        self.open()


gate = Gate()
"""Of the process."""
