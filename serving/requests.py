"""A request that worker threads carry out in steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter
from typing import Generic, TypeVar

from dynamic_tinybert.runtime.common.errors import DeadlineExceededError

Result = TypeVar("Result")


class Request(Generic[Result]):
    """Steps that lead to a result, and the future that will hold it.

    Attributes:
        future: Holds the result or the error. It can be cancelled at any time; no further step is taken then.
        busy_s: Seconds that the steps so far took.
    """

    def __init__(self, steps: Generator[None, None, Result], deadline: float = math.inf) -> None:
        """Make a request of which no step is taken yet.

        Args:
            steps: Takes a step whenever it is resumed, and returns the result. Any thread may resume it.
            deadline: Time of `time.monotonic` from which on no further step is taken.
        """
        self.future: Future[Result] = Future()
        self.busy_s = 0.0
        self._steps = steps
        self._deadline = deadline
        self._arrived = monotonic()

    def step(self) -> Callable[[], None] | None:
        """Take a step. Returns None if there are more, else a function that puts the result or error into the future.

        It never raises: whatever a step raises is the request's error.
        """
        if self.future.done():
            return _nothing
        if monotonic() >= self._deadline:
            return partial(self.fail, deadline_exceeded(self._deadline - self._arrived))
        started = perf_counter()
        try:
            next(self._steps)
        except StopIteration as end:
            return partial(self._succeed, end.value)
        except BaseException as error:  # a panic of tokenizers is no Exception
            return partial(self.fail, error)
        finally:
            self.busy_s += perf_counter() - started
        return None

    def fail(self, error: BaseException) -> None:
        """Put an error into the future, unless it is done or cancelled already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _succeed(self, result: Result) -> None:
        with suppress(InvalidStateError):
            self.future.set_result(result)


def deadline_exceeded(allowed: float) -> DeadlineExceededError:
    """The error of a request that had `allowed` seconds until its deadline."""
    return DeadlineExceededError(
        f"the request was not answered by its deadline, {max(allowed, 0):.3f} s after it arrived; allow more time, "
        "send fewer requests at once, or ask for a faster length configuration"
    )


def _nothing() -> None:
    pass
