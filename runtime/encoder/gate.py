"""The gate before OpenVINO: requests pass it side by side, and a fork waits until none is inside."""

from __future__ import annotations

import threading
from functools import partial
from types import TracebackType


class Gate:
    """Who holds it is at work in OpenVINO; while it is closed, nobody begins. A thread may hold it several times."""

    def __init__(self) -> None:
        self._holds: dict[int, int] = {}  # by thread
        self._changed = threading.Condition()
        self._closer: int | None = None  # the thread that closed it, or waits for the last requests
        self._closers_holds = 0

    def __enter__(self) -> None:
        thread = threading.get_ident()
        holds = self._holds.get(thread, 0)
        if not holds:
            with self._changed:
                # The closer itself asks in a signal's handler only, and would wait for itself.
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
        """Wait until no other thread is inside, and let nobody in.

        The thread's own holds are no reason to wait, else a signal's handler that forks would wait for ever.

        Returns:
            What a signal's handler raised meanwhile, if one did. It ends the wait no earlier: a fork cannot be called
            off.
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
        """Whether this thread closed it, and has not opened it again."""
        return self._closer == threading.get_ident()

    def open(self) -> None:
        """Let the others in again; nothing is changed unless this thread closed."""
        thread = threading.get_ident()
        with self._changed:
            if not self.is_closed_here():
                return
            if self._closers_holds:
                self._holds[thread] = self._closers_holds
            self._closer, self._closers_holds = None, 0
            self._changed.notify_all()

    def open_in_child(self) -> None:
        """The same in a forked process, where the other threads are gone with the locks and the holds that they had."""
        self._changed = threading.Condition()
        self._holds = {}
        self.open()


gate = Gate()
"""Of the process."""
