"""A pool of things that one thread at a time may use, lent to threads in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class FairPool(Generic[T]):
    """Lends things. A thread that asks again at once queues behind those that wait already.

    A thing that comes back goes straight to the thread that has waited longest; only if nobody waits does it become
    idle. Of idle things, the one that was used last is lent first, because its memory is still in the caches.
    """

    def __init__(self, things: Iterable[T]) -> None:
        self._lock = threading.Lock()
        self._idle = list(things)
        self._waiting: deque[_Turn[T]] = deque()  # empty while anything is idle

    # A signal handler may raise in the main thread whenever a function is called or returns. A thing is therefore moved
    # from list to list by statements that call nothing, and is always in exactly one: of what is idle, or of a thread.

    def use(self, work: Callable[[T], R]) -> R:
        """Call `work` with a thing that nobody else uses meanwhile; waits for this thread's turn if none is idle.

        If a signal handler raises, the wait ends, and what this thread had, or was about to get, goes to the next.
        """
        lent: list[T] = []
        try:
            self._lend(lent)
            return work(lent[0])
        finally:
            try:
                self._take_back(lent)
            except BaseException:
                self._take_back(lent)
                raise

    def _lend(self, to: list[T]) -> None:
        """Put a thing into an empty list."""
        turn: _Turn[T] | None = None
        try:
            with self._lock:
                if self._idle:
                    to[:] = self._idle[-1:]
                    del self._idle[-1]
                    return
                turn = _Turn(to)
                self._waiting.append(turn)
            turn.ready.acquire()
        except BaseException:
            if turn is not None:
                try:
                    self._give_up(turn)
                except BaseException:
                    self._give_up(turn)
                    raise
            raise

    def _give_up(self, turn: _Turn[T]) -> None:
        """Leave the queue, unless it is this thread's turn already."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _take_back(self, lent: list[T]) -> None:
        """Empty a list that has at most one thing."""
        with self._lock:
            if not lent:
                return
            if not self._waiting:
                self._idle += lent
                del lent[0]
                return
            turn = self._waiting[0]
            turn.lent[:] = lent
            del self._waiting[0], lent[0]
            turn.ready.release()


class _Turn(Generic[T]):
    """A thread's place in the queue.

    Attributes:
        lent: The thread's list, which has a thing once it is its turn.
        ready: Held until then.
    """

    def __init__(self, lent: list[T]) -> None:
        self.lent = lent
        self.ready = threading.Lock()
        self.ready.acquire()
