"""A worker process, as the front process sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from time import monotonic
from typing import Literal

from dynamic_tinybert.runtime.common.errors import WorkerLostError
from dynamic_tinybert.runtime.latency_table import LatencyTable

from .channel import Channel, open_channel
from .messages import Cancel, CannotStart, Done, Failed, Hello, Message, Ping, Pong, Start, encode
from .options import ModelOptions, Timeouts
from .pending import PendingJob

Cause = Literal["crashed", "hung"]
"""Why a worker is gone."""

_logger = logging.getLogger(__name__)


class WorkerProcess:
    """A process that carries out jobs; `start` it first.

    Attributes:
        in_hand: The jobs that it has been given and that somebody still waits for, by number.
        lost: Whether it takes no further jobs.
        ended: Why it ended; done as soon as that is known, before the process is reaped by `end`.
    """

    def __init__(
        self, options: ModelOptions, timeouts: Timeouts, freed: Callable[[WorkerProcess, PendingJob], None]
    ) -> None:
        """Describe a process that is not started yet.

        Args:
            options: The model.
            timeouts: How long to wait for it.
            freed: Called after each result with the job that is done, when the worker could be given another.
        """
        loop = asyncio.get_running_loop()
        self.in_hand: dict[int, PendingJob] = {}
        self.lost = False
        self.ended: asyncio.Future[Cause] = loop.create_future()
        self._options = options
        self._timeouts = timeouts
        self._freed = freed
        self._greeting: asyncio.Future[Hello | None] = loop.create_future()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._cause: Cause = "crashed"
        self._watch: asyncio.Task[None] | None = None
        self._heard = False  # since the last ping
        self._turns = 0

    @property
    def pid(self) -> int:
        """Its process id, once it is started."""
        assert self._process is not None
        return self._process.pid

    async def start(self, table: LatencyTable | None = None) -> Hello:
        """Start the process and wait until its model is loaded.

        Args:
            table: The latency table that an earlier worker measured.

        Returns:
            What it says of the model.

        Raises:
            Exception: What loading the model raised there.
            WorkerLostError: The process ended, or took too long.
            OSError: The system starts no further process.
        """
        try:
            self._channel = await self._spawn()
            self._channel.send(encode(Start(self._options, table)))
            async with asyncio.timeout(self._timeouts.start_s):
                hello = await self._greeting
        except TimeoutError as error:
            await self.end(at_once=True)
            raise WorkerLostError(f"a process has not loaded its model in {self._timeouts.start_s:g} s") from error
        except BaseException:
            await self.end(at_once=True)
            raise
        if hello is None:
            await self.end(at_once=True)
            assert self._process is not None
            raise WorkerLostError(f"a process ended with {_exit(self._process.returncode)} before its model was loaded")
        self._watch = asyncio.create_task(self._watch_over())
        return hello

    def give(self, job: PendingJob) -> None:
        """Give it a job."""
        assert self._channel is not None
        self.in_hand[job.number] = job
        job.worker, job.given = self, monotonic()
        self._channel.send(job.frame)

    def cancel(self, job: PendingJob) -> None:
        """Tell it that nobody waits for a job any more, and forget the job."""
        if self.in_hand.pop(job.number, None) is not None and self._channel is not None:
            self._channel.send(encode(Cancel(job.number)))

    async def end(self, *, at_once: bool = False) -> None:
        """End the process, and return when it is gone. It gets some time to end by itself unless `at_once`."""
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        if self._channel is not None:
            self._channel.close()
        if self._process is None:
            return
        if not at_once:
            await _exited(self._process, self._timeouts.exit_s)
        self._process.kill()
        await _exited(self._process, None)

    async def _spawn(self) -> Channel:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:  # if a copy stayed open here, the end of the process would not be noticed
            try:
                # -P: the working directory is no place to import modules from.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", f"{__package__}.main", str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # signals from a terminal are for the front process
                )
            except BaseException:
                ours.close()
                raise
        return await open_channel(ours, self._receive, self._lose)

    def _receive(self, message: Message) -> None:
        match message:
            case Done(number, result):
                self._settle(number, lambda job: job.succeed(result))
            case Failed(number, error):
                self._settle(number, lambda job: job.fail(error))
            case Pong(turns):
                self._heard = True
                self._turns = turns
            case Hello():
                if not self._greeting.done():
                    self._greeting.set_result(message)
            case CannotStart(error):
                if not self._greeting.done():
                    self._greeting.set_exception(error)

    def _settle(self, number: int, settle: Callable[[PendingJob], None]) -> None:
        job = self.in_hand.pop(number, None)
        if job is not None:  # it was not cancelled
            settle(job)
            job.worker = None
            self._freed(self, job)

    def _lose(self) -> None:
        """The connection is gone: the process ended, was killed, or is of no use any more."""
        self.lost = True
        if not self._greeting.done():
            self._greeting.set_result(None)
        if not self.ended.done():
            self.ended.set_result(self._cause)

    async def _watch_over(self) -> None:
        """Ask again and again whether it is alive, and kill it if it is not.

        Time counts in questions rather than by the clock, so that a front process that was stopped itself does not
        take its workers for hung.
        """
        silent = without_turn = 0
        before = -1
        timeouts = self._timeouts
        while True:
            self._heard = False
            assert self._channel is not None
            self._channel.send(encode(Ping()))
            await asyncio.sleep(timeouts.beat_s)
            silent = 0 if self._heard else silent + 1
            without_turn = 0 if self._turns != before else without_turn + 1
            before = self._turns
            is_silent = silent * timeouts.beat_s >= timeouts.silence_s
            if is_silent or without_turn * timeouts.beat_s >= timeouts.turn_s or self._is_held_up():
                _logger.error("process %d hangs and is killed", self.pid)
                self._cause = "hung"
                assert self._process is not None
                self._process.kill()  # which closes the connection
                return

    def _is_held_up(self) -> bool:
        """Whether a job that is tried again, and so has the worker for itself, takes too long."""
        latest = monotonic() - self._timeouts.turn_s
        return any(job.losses and job.given < latest for job in self.in_hand.values())


async def _exited(process: subprocess.Popen[bytes], seconds: float | None) -> None:
    """Wait for the end of a process, or until the time is over. Needs neither threads nor a handler of SIGCHLD."""
    try:
        async with asyncio.timeout(seconds):
            while process.poll() is None:
                await asyncio.sleep(0.005)
    except TimeoutError:
        pass


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
