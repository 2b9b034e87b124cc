"""Worker threads that carry out requests from a bounded queue, one part of each in turn."""

from __future__ import annotations

import atexit
import math
import os
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from functools import partial
from itertools import count, takewhile
from operator import itemgetter
from typing import Any, TypeVar
from weakref import WeakSet

from dynamic_tinybert.runtime.common.errors import ClosedError, OverloadedError

from .requests import Request, Work

Result = TypeVar("Result")

_WEIGHT = 0.1
"""Weight of the latest request in the mean time of a request."""

_RECHECK_S = 60.0
"""Seconds after which an idle thread looks whether its scheduler was closed. The garbage collector may call `close` in
this very thread, after it has looked and before it can be notified."""


class Scheduler:
    """Threads that run one part of a waiting request each, and put it back behind all others if it has more.

    Between two parts of a request, each other waiting request gets at most one turn, so that neither long nor short
    ones wait for ever. A turn may also run the next parts of other requests, if they can be run together. While as many
    parts are being run as the model runs at once, the other threads prepare the requests that wait, which keep their
    places, and compute the results of those that were run: a thread that has run a part goes on with the next one, so
    that the model does not wait. The threads start with the first request. A forked process starts with an empty queue
    and threads of its own; the requests that its parent had accepted remain with the parent.

    Attributes:
        workers: Number of threads.
        max_queued: Number of requests that may wait, besides one for each thread.
        turns: Number of turns in which a thread has run a part of a request.
    """

    def __init__(self, *, workers: int, max_queued: int, at_once: int = 1) -> None:
        """Make a scheduler without requests.

        Args:
            workers: Number of threads.
            max_queued: Number of requests that may wait, besides one for each thread.
            at_once: Number of threads that may run the model at the same time.
        """
        self.workers = workers
        self.max_queued = max_queued
        self._at_once = min(at_once, workers)
        self.turns = 0
        self._closing = self._dropping = False
        self._mean_s: float | None = None  # of the busy time of a request
        self._start_empty()
        _schedulers.add(self)

    def _start_empty(self) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Request[Any], int] = OrderedDict()  # a queue from which any can be removed
        self._numbers = count()  # the values of the queue, ascending
        self._running = 0  # requests
        self._free = self._at_once  # turns that may begin
        self._ended: deque[Request[Any]] = deque()  # those that were run, whose results are not computed yet
        self._threads: list[threading.Thread] = []
        self._alive = 0
        self._stopped: Future[None] = Future()
        self._stopped.set_running_or_notify_cancel()  # who gives up waiting for it must not cancel it for others

    @property
    def queued(self) -> int:
        """Number of requests that wait for a thread, those included of which some parts were run already."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of requests of which a part is being run."""
        return self._running

    def submit(self, work: Work[Result], deadline: float = math.inf) -> Future[Result]:
        """Accept a request; the arguments are those of `Request`.

        Raises:
            ClosedError: `close` was called.
            OverloadedError: The queue is full.
        """
        request = Request(work, deadline)
        with self._changed:
            if self._closing:
                raise ClosedError("the answerer is closed, or is closing and takes no further requests; open a new one")
            if len(self._waiting) + self._running >= self.max_queued + self.workers:
                raise self._overloaded()
            if not self._threads:
                self._start_threads()
            self._waiting[request] = next(self._numbers)
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._leave(request))
        return request.future

    def close(self, *, drain: bool) -> Future[None]:
        """Refuse new requests; the threads end when all accepted ones are answered.

        Args:
            drain: Whether waiting requests are still answered. Otherwise they end with ClosedError at once, and those
                of which a part is being run after that part, unless it was the last.

        Returns:
            A future that is done when the threads end. It cannot be cancelled.
        """
        with self._changed:
            dropped = [] if drain else list(self._waiting)
            for request in dropped:
                del self._waiting[request]
            if not self._threads and not self._stopped.done():
                self._stopped.set_result(None)
            self._closing, self._dropping = True, self._dropping or not drain
            self._changed.notify_all()
        for request in dropped:
            request.fail(_closed())
        return self._stopped

    def join(self) -> None:
        """Wait for the end of the threads; `close` first."""
        for thread in self._threads:
            thread.join()

    def _start_threads(self) -> None:
        for number in range(self.workers):
            # A daemon, as the interpreter waits for other threads before `_at_exit` could end them.
            thread = threading.Thread(target=self._work, name=f"dynamic-tinybert-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
            self._alive += 1

    def _work(self) -> None:
        while self._take_turn():
            pass
        with self._changed:
            self._alive -= 1
            last = not self._alive
        if last:
            self._stopped.set_result(None)

    def _take_turn(self) -> bool:
        """Prepare, run or finish a request; False if there will never be one again.

        Results are computed first, unless a part can be run and other threads can compute them meanwhile.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or self._next() or self._is_over(), _RECHECK_S):
                return True
            request = self._next()
            runs = request is not None and request.prepared
            if self._ended and not (runs and self.workers > self._at_once):
                turn = partial(self._finish, self._ended.popleft())
            elif request is None:
                return False
            else:
                if runs:  # with an eye on all others; what is prepared is checked against those before it
                    del self._waiting[request]
                    self._running += 1
                    self._free -= 1
                others = takewhile(lambda other: other is not request, self._waiting)
                prepared = [other for other in others if other.prepared and not other.over]
                turn = partial(self._run if runs else self._prepare, request, prepared)
                request.preparing = not runs
        turn()
        return True

    def _next(self) -> Request[Any] | None:
        for request in self._waiting:
            if self._free if request.prepared else not request.preparing:
                return request
        return None

    def _prepare(self, request: Request[Any], ahead: list[Request[Any]]) -> None:
        request.prepare(ahead)
        if not request.over:
            return  # it has kept its place
        request.finish()
        with self._changed:
            waited = self._waiting.pop(request, None) is not None
            if waited:
                self._measure(request)
            if self._closing:
                self._changed.notify_all()
        if waited:
            request.settle()

    def _run(self, request: Request[Any], waiting: list[Request[Any]]) -> None:
        numbers: dict[Request[Any], int] = {}  # of the companions
        companions = request.companions(waiting)
        if companions:
            with self._changed:
                numbers = {other: self._waiting.pop(other) for other in companions if other in self._waiting}
                self._running += len(numbers)
        ran = request.run(list(numbers))
        with self._changed:
            self.turns += 1
            self._free += 1
            for one in (request, *numbers):
                if one.over or self._dropping:
                    self._ended.append(one)
                else:
                    self._running -= 1
                    self._waiting[one] = next(self._numbers) if ran else numbers[one]
            if numbers and not ran:  # the companions had no turn, and keep their places
                self._waiting = OrderedDict(sorted(self._waiting.items(), key=itemgetter(1)))
            if self._waiting or len(self._ended) > 1:  # more than this thread, which goes on, does next
                self._changed.notify()

    def _finish(self, request: Request[Any]) -> None:
        request.finish()
        with self._changed:
            self._running -= 1
            self._measure(request)
            if self._closing:
                self._changed.notify_all()
        request.settle()  # only now: who has the answer finds the place free
        if self._dropping:
            request.fail(_closed())

    def _is_over(self) -> bool:
        return self._closing and not self._running and not self._waiting

    def _leave(self, request: Request[Any]) -> None:
        """Free the place of a request that was cancelled while it waited."""
        with self._changed:
            self._waiting.pop(request, None)
            if self._closing:
                self._changed.notify_all()

    def _measure(self, request: Request[Any]) -> None:
        if request.answered:  # a cancelled one took less than it would have
            mean = request.busy_s if self._mean_s is None else self._mean_s
            self._mean_s = mean + _WEIGHT * (request.busy_s - mean)

    def _overloaded(self) -> OverloadedError:
        accepted = len(self._waiting) + self._running
        retry = None if self._mean_s is None else accepted * self._mean_s / self._at_once
        when = "later" if retry is None else f"in about {retry:.2g} s"
        return OverloadedError(
            f"{accepted} requests are waiting or running, as many as max_queued={self.max_queued} and "
            f"{self.workers} workers accept; try again {when}, send fewer requests at once, or raise max_queued",
            retry_after_s=retry,
        )


def _closed() -> ClosedError:
    return ClosedError("the answerer was closed before it answered this request; send it to another one")


_schedulers: WeakSet[Scheduler] = WeakSet()


def _after_fork() -> None:
    for scheduler in list(_schedulers):
        scheduler._start_empty()


def _at_exit() -> None:
    """End the threads of schedulers that nobody closed: a thread must not be in OpenVINO when the interpreter ends."""
    for scheduler in list(_schedulers):
        scheduler.close(drain=False)
        scheduler.join()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
