"""A request that worker threads carry out in turns, and what its work must offer for that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any, Generic, Protocol, TypeVar

from dynamic_tinybert.runtime.common.errors import DeadlineExceededError

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Work(Protocol[Result_co]):
    """What a request is about, in parts. Any thread may call a method, one after the other."""

    def prepare(self) -> None:
        """Do what needs no model, before the first turn."""

    def check(self, ahead: Sequence[Work[Any]], deadline: float) -> None:
        """Refuse the work if it cannot be done by a deadline.

        Args:
            ahead: The prepared work that waits before it.
            deadline: Time of `time.monotonic`.

        Raises:
            OverloadedError: It cannot.
        """

    @property
    def done(self) -> bool:
        """Whether nothing is left that needs the model."""

    def companions(self, waiting: Sequence[Work[Any]]) -> Sequence[int]:
        """Choose how the next part is run, at the last moment before it is.

        Args:
            waiting: All other prepared work, in the order of the queue.

        Returns:
            The places in `waiting` of those whose next parts can be run together with it, at no loss for anyone.
        """

    def run(self, companions: Sequence[Work[Any]]) -> None:
        """Run the next part, and those of companions that `companions` named. Where it fails, nothing has changed."""

    def result(self) -> Result_co:
        """The result, once it is done."""


class Request(Generic[Result]):
    """Work, and the future that will hold its result.

    Attributes:
        work: What is to be done.
        future: Holds the result or the error. It can be cancelled at any time; nothing further is run then.
        prepared: Whether the work is prepared.
        preparing: Whether a thread prepares it.
        busy_s: Seconds that threads have spent on it.
    """

    def __init__(self, work: Work[Result], deadline: float = math.inf) -> None:
        """Make a request of which nothing is done yet.

        Args:
            work: What is to be done.
            deadline: Time of `time.monotonic` from which on nothing further is run.
        """
        self.work = work
        self.future: Future[Result] = Future()
        self.prepared = self.preparing = False
        self.busy_s = 0.0
        self._deadline = deadline
        self._arrived = monotonic()
        self._error: BaseException | None = None
        self._results: list[Result] = []  # none or one

    @property
    def over(self) -> bool:
        """Whether nothing of it is to be run any more."""
        return self._error is not None or self.future.done() or (self.prepared and self.work.done)

    @property
    def answered(self) -> bool:
        """Whether it has a result, for which somebody waits."""
        return bool(self._results) and not self.future.done()

    def prepare(self, ahead: Sequence[Request[Any]]) -> None:
        """Prepare the work, of which an error is the request's; `ahead` are the prepared requests that wait before."""
        started = perf_counter()
        try:
            if not self._expired():
                self.work.prepare()
                self.work.check([request.work for request in ahead], self._deadline)
        except BaseException as error:  # a panic of tokenizers is no Exception
            self._error = error
        self.prepared = True
        self.busy_s += perf_counter() - started

    def companions(self, waiting: Sequence[Request[Any]]) -> list[Request[Any]]:
        """Those of the waiting requests whose next parts can be run together with that of this one."""
        try:
            places = () if self._expired() else self.work.companions([request.work for request in waiting])
        except BaseException as error:
            self._error, places = error, ()
        return [waiting[place] for place in places]

    def run(self, companions: Sequence[Request[Any]] = ()) -> bool:
        """Run the next part, with those of companions. If that fails, each is run alone and has its own error.

        Returns:
            False if nothing was run, of companions neither, because this request is over.
        """
        if self._expired() or self.over:
            return False
        started = perf_counter()
        failed = False
        try:
            self.work.run([request.work for request in companions])
        except BaseException as error:
            failed = True
            if not companions:
                self._error = error
        share = (perf_counter() - started) / (1 + len(companions))
        for request in (self, *companions):
            request.busy_s += share
            if failed and companions:
                request.run()
        return True

    def finish(self) -> None:
        """Compute the result, if nothing is left to be run."""
        if self._error is not None or self.future.done() or not self.work.done:
            return
        started = perf_counter()
        try:
            self._results.append(self.work.result())
        except BaseException as error:
            self._error = error
        self.busy_s += perf_counter() - started

    def settle(self) -> None:
        """Put the result or error into the future, unless it was cancelled."""
        with suppress(InvalidStateError):
            if self._error is not None:
                self.future.set_exception(self._error)
            elif self._results:
                self.future.set_result(self._results[0])

    def fail(self, error: BaseException) -> None:
        """Put an error into the future, unless it is done or cancelled already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _expired(self) -> bool:
        if monotonic() >= self._deadline and self._error is None:
            self._error = deadline_exceeded(self._deadline - self._arrived)
        return self._error is not None


def deadline_exceeded(allowed: float) -> DeadlineExceededError:
    """The error of a request that had `allowed` seconds until its deadline."""
    return DeadlineExceededError(
        f"the request was not answered by its deadline, {max(allowed, 0):.3f} s after it arrived; allow more time, "
        "send fewer requests at once, or ask for a faster length configuration"
    )
