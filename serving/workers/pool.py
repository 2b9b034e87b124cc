"""The `Backend` whose jobs are carried out in processes of their own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import ClosedError, StartingError, WorkerLostError
from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.serving.jobs import AnswerJob, Job, ModelFacts
from dynamic_tinybert.serving.requests import deadline_exceeded

from .dispatch import Dispatcher
from .messages import Run, encode
from .options import ModelOptions, Timeouts, threads_arguments
from .pending import PendingJob
from .process import Cause, WorkerProcess

IN_HAND = 64
"""Jobs that a worker is given at once. It takes turns among these, so that short questions overtake long documents, and
it lets them share batches; but a job that it was given cannot move to a worker that becomes idle."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0  # between attempts to replace a worker

_logger = logging.getLogger(__name__)


_REPLY_S = 0.002
"""Seconds before a deadline by which a worker must be done, so that the client can have the result in time."""


class WorkerPool:
    """Hands jobs to worker processes, and replaces those that crash or hang. It belongs to one event loop.

    Attributes:
        workers: Number of processes.
        max_queued: Number of jobs that may wait, besides those that workers have been given.
        facts: What the model is; None before it is loaded.
        draining: Whether `aclose` was called.
        restarts: How many workers were lost, by cause: ``crashed`` or ``hung``.
    """

    def __init__(
        self,
        options: ModelOptions,
        *,
        workers: int = 1,
        max_queued: int = 128,
        in_hand: int = IN_HAND,
        threads: int | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Make a pool that is not started.

        Args:
            options: What each worker loads.
            workers: Number of processes.
            max_queued: Number of jobs that may wait, besides those that workers have been given.
            in_hand: Number of jobs that a worker is given at once.
            threads: CPU threads of all workers together; None for as many as the process may use.
            timeouts: How long to wait for workers.

        Raises:
            InvalidInputError: A number is not an int of at least 1.
        """
        self.workers = require_int("workers", workers, 1)
        self.max_queued = require_int("max_queued", max_queued, 1)
        self.facts: ModelFacts | None = None
        self.draining = False
        self.restarts: dict[Cause, int] = {"crashed": 0, "hung": 0}
        self._dispatcher = Dispatcher(max_queued=max_queued, in_hand=require_int("in_hand", in_hand, 1))
        self._options = replace(options, arguments={**threads_arguments(workers, threads), **options.arguments})
        self._timeouts = timeouts or Timeouts()
        self._numbers = count()
        self._table: LatencyTable | None = None  # of the first worker, for those after it
        self._keepers: list[asyncio.Task[None]] = []
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._down = False  # the last worker is gone, and the latest attempt to replace it failed

    @property
    def alive(self) -> int:
        """Number of workers that take jobs."""
        return len(self._dispatcher.workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of these workers."""
        return [worker.pid for worker in self._dispatcher.workers]

    @property
    def ready(self) -> bool:
        """Whether jobs are taken and would be run at once if nothing were waiting."""
        return self.alive > 0 and not self.draining

    @property
    def queued(self) -> int:
        """Number of jobs that no worker has been given yet."""
        return self._dispatcher.queued

    @property
    def running(self) -> int:
        """Number of jobs that workers have in hand."""
        return self._dispatcher.running

    async def start(self) -> None:
        """Start the workers; returns when all have loaded the model. After an error the pool is closed.

        Raises:
            BundleError: The bundle cannot be used.
            DynamicTinyBertError: The model cannot be loaded for another reason.
            WorkerLostError: A process ended before it had loaded the model, or took too long.
            ClosedError: `aclose` was called.
        """
        if self.draining or self._starting is not None:
            raise ClosedError("a pool is started once, and not after it was closed; make a new one")
        self._starting = asyncio.create_task(self._start())
        try:
            await self._starting
        except asyncio.CancelledError:
            if self.draining:
                raise ClosedError("the pool was closed before its workers had started") from None
            await self.aclose()
            raise
        except Exception:
            await self.aclose()
            raise

    async def run(self, job: Job, *, deadline: float | None = None) -> Any:  # noqa: ANN401 - by the job's kind
        """Run a job; see `Backend.run`."""
        now = monotonic()
        self._check_open()
        if deadline is not None and deadline <= now:
            raise deadline_exceeded(deadline - now)
        self._dispatcher.check_place()
        if isinstance(job, AnswerJob) and job.arrived is None:
            job = replace(job, arrived=now)  # the wait here counts towards a budget
        number = next(self._numbers)
        by = None if deadline is None else deadline - _REPLY_S
        pending = PendingJob(number, encode(Run(number, job, by)))
        if deadline is not None:
            pending.fail_at(deadline)
        self._dispatcher.add(pending)
        try:
            return await pending.future
        finally:
            pending.forget()
            self._dispatcher.remove(pending)

    async def aclose(self) -> None:
        """Refuse new jobs, finish the accepted ones, and end the workers.

        Jobs that are not done after `Timeouts.drain_s` end with ClosedError.
        """
        self.draining = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _start(self) -> None:
        """Start one worker, and then the others with the latency table that it measured while nothing else ran."""
        await self._start_worker()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.workers - 1):
                    group.create_task(self._start_worker())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _start_worker(self) -> None:
        worker = self._new_worker(self._options)
        self.facts, self._table = await worker.start(self._table)
        self._take_on(worker)  # before the task, which may be cancelled before it begins
        self._keepers.append(asyncio.create_task(self._keep(worker)))

    def _new_worker(self, options: ModelOptions) -> WorkerProcess:
        return WorkerProcess(options, self._timeouts, self._dispatcher.freed)

    async def _keep(self, worker: WorkerProcess) -> None:
        """Put another worker in the place of this one whenever it is lost."""
        while True:
            cause = await worker.ended
            self.restarts[cause] += 1
            _logger.error("process %s, which runs the model, %s; another one is started", worker.pid, cause)
            self._dispatcher.take_back(worker)
            try:
                await worker.end(at_once=True)
            except asyncio.CancelledError:
                await worker.end(at_once=True)
                raise
            worker = await self._replacement()
            self._take_on(worker)

    def _take_on(self, worker: WorkerProcess) -> None:
        self._dispatcher.workers.append(worker)
        self._dispatcher.dispatch()
        self._down = False

    async def _replacement(self) -> WorkerProcess:
        pause = _FIRST_PAUSE_S
        while True:
            worker = self._new_worker(replace(self._options, warm_up=False))  # so that it is there soon
            try:
                await worker.start(self._table)
                return worker
            except Exception as error:
                _logger.exception("no process that runs the model could be started; the next attempt in %g s", pause)
                if not self.alive:  # nobody knows for how long, so nothing waits for it
                    self._down = True
                    self._dispatcher.fail_waiting(WorkerLostError(f"no process that runs the model starts: {error}"))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _close(self) -> None:
        try:
            if self._starting is not None and not self._starting.done():
                self._starting.cancel()
                await asyncio.wait([self._starting])
            async with asyncio.timeout(self._timeouts.drain_s):
                await self._dispatcher.idle.wait()
        except TimeoutError:
            _logger.error("%d jobs were not done when the time to drain was over", self.queued + self.running)
        finally:
            await self._end()

    async def _end(self) -> None:
        error = ClosedError("the service was closed before this request was done; send it to another one")
        self._dispatcher.fail_all(error)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        workers, self._dispatcher.workers = self._dispatcher.workers, []
        await asyncio.gather(*(worker.end() for worker in workers))

    def _check_open(self) -> None:
        if self.draining:
            raise ClosedError("the service is closing and takes no further requests; send it to another one")
        if self.facts is None:
            raise StartingError("the model is not loaded yet; try again in a few seconds")
        if self._down:
            raise StartingError("the process that runs the model ended, and no other one could be started; try later")
