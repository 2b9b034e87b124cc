"""Which job a worker is given, and when."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic

from dynamic_tinybert.runtime.common.errors import OverloadedError, WorkerLostError

from .pending import PendingJob
from .process import WorkerProcess

_WEIGHT = 0.1  # of the latest job in the mean time of a job


class Dispatcher:
    """Jobs that wait, in the order of their arrival, and the workers that take them.

    The worker that has the fewest jobs gets the next one. A job whose worker was lost is tried once more, ahead of the
    others, on a worker that has nothing else to do: if it is the job that ends processes, no other is lost with it the
    second time.

    Attributes:
        workers: Those that are alive; whoever changes this calls `dispatch`.
        idle: Set while there are no jobs.
    """

    def __init__(self, *, max_queued: int, in_hand: int) -> None:
        """Begin without workers.

        Args:
            max_queued: Number of jobs that may wait, besides those that workers have been given.
            in_hand: Number of jobs that a worker is given at once.
        """
        self.workers: list[WorkerProcess] = []
        self.idle = asyncio.Event()
        self.idle.set()
        self._max_queued = max_queued
        self._in_hand = in_hand
        self._waiting: OrderedDict[PendingJob, None] = OrderedDict()
        self._mean_s: float | None = None  # from one result of a busy worker to the next
        self._latest: dict[WorkerProcess, float] = {}  # time of its latest result

    @property
    def queued(self) -> int:
        """Number of jobs that no worker has been given yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of jobs that workers have in hand."""
        return sum(len(worker.in_hand) for worker in self.workers)

    def check_place(self) -> None:
        """Raise OverloadedError if no further job may wait."""
        if len(self._waiting) < self._max_queued:
            return
        accepted = self.queued + self.running
        retry = None if self._mean_s is None else accepted * self._mean_s / max(1, len(self.workers))
        when = "later" if retry is None else f"in about {retry:.2g} s"
        raise OverloadedError(
            f"{accepted} requests are waiting or running, as many as max_queued={self._max_queued} and "
            f"{len(self.workers)} processes accept; try again {when}, send fewer requests at once, or raise max_queued",
            retry_after_s=retry,
        )

    def add(self, job: PendingJob) -> None:
        """Let a job wait for a worker."""
        self.idle.clear()
        self._waiting[job] = None
        self.dispatch()

    def remove(self, job: PendingJob) -> None:
        """Forget a job, wherever it is: it is done, or nobody waits for it any more."""
        self._waiting.pop(job, None)
        if job.worker is not None:
            job.worker.cancel(job)
            self.dispatch()
        if not self._waiting and not self.running:
            self.idle.set()

    def dispatch(self) -> None:
        """Give waiting jobs to workers that can take some."""
        while self._waiting:
            free = [worker for worker in self.workers if self._can_take(worker)]
            job = next(iter(self._waiting))
            if job.losses:
                free = [worker for worker in free if not worker.in_hand]
            if not free:
                return
            del self._waiting[job]
            if not job.future.done():
                min(free, key=lambda worker: len(worker.in_hand)).give(job)

    def freed(self, worker: WorkerProcess, job: PendingJob) -> None:
        """A job is done: measure the time since the worker's last result, and give it others."""
        now = monotonic()
        took = now - max(job.given, self._latest.get(worker, 0.0))
        self._latest[worker] = now
        mean = took if self._mean_s is None else self._mean_s
        self._mean_s = mean + _WEIGHT * (took - mean)
        self.dispatch()

    def take_back(self, worker: WorkerProcess) -> None:
        """Take a lost worker off, and put its jobs first in the queue, except those that lost a second one."""
        self.workers.remove(worker)
        self._latest.pop(worker, None)
        for job in reversed(worker.in_hand.values()):
            job.losses += 1
            job.worker = None
            if job.losses > 1:
                job.fail(WorkerLostError("two processes ended or hung while they ran this job; it is given up"))
            else:
                self._waiting[job] = None
                self._waiting.move_to_end(job, last=False)
        worker.in_hand.clear()
        self.dispatch()

    def fail_waiting(self, error: Exception) -> None:
        """Give an error to all jobs that wait."""
        for job in self._waiting:
            job.fail(error)

    def fail_all(self, error: Exception) -> None:
        """Give an error to all jobs."""
        self.fail_waiting(error)
        for worker in self.workers:
            for job in worker.in_hand.values():
                job.fail(error)

    def _can_take(self, worker: WorkerProcess) -> bool:
        if worker.lost or len(worker.in_hand) >= self._in_hand:
            return False
        # Nothing is added to a job that may end the process.
        return len(worker.in_hand) != 1 or not next(iter(worker.in_hand.values())).losses
