"""What asynchronous services of all tasks share: a queue, worker threads, deadlines, and the end."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DeadlineExceededError, InvalidInputError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .call import Call
from .requests import Work, deadline_exceeded
from .scheduler import Scheduler

Result = TypeVar("Result")


class AsyncService:
    """Runs requests to one model without blocking the event loop.

    Requests wait in a bounded queue for worker threads. A worker runs one batch of a request, then turns to the next
    waiting request, so that a long request does not keep short ones waiting until it is finished.

    One object may be used by several event loops, also at once. In a forked process it starts with an empty queue.
    Close it with `aclose`, or use it in `async with`.

    Attributes:
        model: The model; others may use it at the same time.
    """

    def __init__(self, model: LengthAdaptiveModel, *, max_queued: int = 128, workers: int | None = None) -> None:
        """Run requests to a model.

        Args:
            model: The model.
            max_queued: Number of requests that may wait, besides one for each worker. Further ones are refused.
            workers: Number of threads. By default one more than the model runs calls at once, which is 2 unless
                `num_streams` or ``performance_hint="THROUGHPUT"`` says otherwise: while one runs the model, on all
                cores, another prepares requests and computes results. More only wait for the model.

        Raises:
            InvalidInputError: A number is not an int of at least 1.
            InferenceError: OpenVINO could not compile the default length configuration.
        """
        self.model = model
        self._at_once = model.parallel_requests
        workers = self._at_once + 1 if workers is None else require_int("workers", workers, 1)
        self._scheduler = Scheduler(
            workers=workers, max_queued=require_int("max_queued", max_queued, 1), at_once=self._at_once
        )
        weakref.finalize(self, self._scheduler.close, drain=False).atexit = False  # it ends its threads by itself

    @property
    def max_queued(self) -> int:
        """Number of requests that may wait, besides one for each worker."""
        return self._scheduler.max_queued

    @property
    def workers(self) -> int:
        """Number of threads."""
        return self._scheduler.workers

    @property
    def queued(self) -> int:
        """Number of requests that wait for a worker, those included of which some batches have been run."""
        return self._scheduler.queued

    @property
    def running(self) -> int:
        """Number of requests that workers have in hand."""
        return self._scheduler.running

    @property
    def turns(self) -> int:
        """Number of turns in which workers have run a batch."""
        return self._scheduler.turns

    async def in_turn(
        self, function: Callable[[], Result], *, timeout: float | None = None, deadline: float | None = None
    ) -> Result:
        """Call a function in a worker when its turn comes, and return its result; it takes a place as any request does.

        `timeout`, `deadline` and their errors are those of a call; others are the function's.
        """
        return await self._result(Call(function), timeout, deadline)

    async def aclose(self, *, drain: bool = True) -> None:
        """Refuse new requests, and return when the accepted ones are done and the threads have ended.

        It can be called again, also with ``drain=False`` after a wait for the drain was given up.

        Args:
            drain: Whether accepted requests are still answered. Otherwise those that wait end with ClosedError.
        """
        await asyncio.wrap_future(self._scheduler.close(drain=drain))
        self._scheduler.join()  # the threads have nothing left to do

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _result(self, work: Work[Result], timeout: float | None, deadline: float | None) -> Result:
        now = monotonic()
        end = _deadline(now, timeout, deadline)
        if end <= now:
            raise deadline_exceeded(end - now)
        future = asyncio.wrap_future(self._scheduler.submit(work, end))
        if end == math.inf:
            return await future
        try:
            async with asyncio.timeout(end - now):
                return await future
        except DeadlineExceededError:  # found by a worker, before this loop had time to
            raise
        except TimeoutError as error:
            raise deadline_exceeded(end - now) from error


def _deadline(now: float, timeout: float | None, deadline: float | None) -> float:
    """The time of `time.monotonic` by which an answer is wanted."""
    if timeout is not None and deadline is not None:
        raise InvalidInputError("timeout and deadline set the same thing; give one")
    if deadline is not None:
        return _finite("deadline", deadline)
    if timeout is None:
        return math.inf
    if _finite("timeout", timeout) <= 0:
        raise InvalidInputError(f"timeout must be more than 0 seconds, not {timeout!r}")
    return now + timeout


def _finite(name: str, value: float) -> float:
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be a finite number of seconds, not {value!r}")
    return number
