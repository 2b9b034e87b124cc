"""A job between its arrival at the pool and its result."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from dynamic_tinybert.serving.requests import deadline_exceeded

if TYPE_CHECKING:
    from .process import WorkerProcess


class PendingJob:
    """A job that waits or is being run.

    Attributes:
        number: Tells it from all other jobs of the pool.
        frame: The message that gives it to a worker.
        future: Will hold its result or its error.
        losses: Number of workers that ended while they had it.
        worker: What has been given it; None while it waits, and after it was done.
        given: Time of `time.monotonic` at which that was.
    """

    __slots__ = ("_timer", "frame", "future", "given", "losses", "number", "worker")

    def __init__(self, number: int, frame: bytes) -> None:
        self.number = number
        self.frame = frame
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.losses = 0
        self.worker: WorkerProcess | None = None
        self.given = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def fail_at(self, deadline: float) -> None:
        """End with DeadlineExceededError at this time of `time.monotonic`, unless there is a result before."""
        allowed = deadline - monotonic()
        self._timer = self.future.get_loop().call_later(allowed, lambda: self.fail(deadline_exceeded(allowed)))

    def succeed(self, result: object) -> None:
        """Give the result to who waits for it, if somebody still does."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give an error to who waits for the result, if somebody still does."""
        if not self.future.done():
            self.future.set_exception(error)

    def forget(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
