"""A worker: a process that runs the model for the front process that started it, and ends with it.

It is started as ``python -m dynamic_tinybert.serving.workers.main FD``, where FD is its end of a UNIX socket pair.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from dynamic_tinybert.runtime.common.errors import DynamicTinyBertError, InferenceError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.serving.answerer import AsyncQuestionAnswerer
from dynamic_tinybert.serving.carrying_out import carry_out, compile_graphs, model_facts
from dynamic_tinybert.serving.service import AsyncService
from dynamic_tinybert.serving.tasks import service_for

from .channel import Channel, open_channel
from .messages import Cancel, CannotStart, Done, Failed, Hello, Message, Ping, Pong, Run, Start, encode

_PR_SET_PDEATHSIG = 1
_SWITCH_INTERVAL_S = 0.0005
"""Longest time that a thread with results of the model waits for the interpreter while another one cuts texts. The
default of Python, 5 ms, is longer than many a request takes."""

_UNBOUNDED = 1 << 30  # the front process bounds what it sends

_logger = logging.getLogger(__name__)


def main() -> None:
    """Serve the front process at the other end of the socket that the first argument names, until it is gone."""
    parent = int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # where EOF would not be noticed: stopped, or hung
    if os.getppid() != parent:  # it ended before that
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to whole groups of processes; the front process drains
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(socket.socket(fileno=int(sys.argv[1]))))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop, which takes less time for a message, if it is installed; otherwise that of asyncio."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(end: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[Message | None] = loop.create_future()
    lost = asyncio.Event()

    def hang_up() -> None:
        lost.set()
        if not first.done():
            first.set_result(None)

    channel = await open_channel(end, first.set_result, hang_up)
    start = await first
    if not isinstance(start, Start):
        return
    try:
        hello, service = _load(start)
    except Exception as error:
        channel.send(encode(CannotStart(_portable(error))))
        await lost.wait()  # the front process has read it, and hung up
        return
    worker = Worker(service, channel)
    channel.received = worker.handle
    channel.send(encode(hello))
    await lost.wait()
    await worker.end()


def _load(start: Start) -> tuple[Hello, AsyncService]:
    options, table = start
    model = LengthAdaptiveModel.from_pretrained(options.bundle, **options.arguments)
    service = service_for(model, max_queued=_UNBOUNDED)
    if isinstance(service, AsyncQuestionAnswerer):  # the only one with budgets
        if table is not None:
            service.answerer.budgets.adopt(table)
        elif options.warm_up:
            table = service.answerer.latency_table()
    if options.warm_up:
        compile_graphs(model)
    return Hello(model_facts(model, options.name), table), service


class Worker:
    """Carries out the jobs that come by the channel."""

    def __init__(self, service: AsyncService, channel: Channel) -> None:
        """Carry out jobs with a service, and send results by a channel."""
        self._service = service
        self._channel = channel
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._turn: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Number of jobs that are not done."""
        return len(self._jobs)

    def handle(self, message: Message) -> None:
        """Act on a message from the front process."""
        match message:
            case Run():
                task = self._jobs[message.number] = asyncio.create_task(self._run(message))
                task.add_done_callback(lambda _: self._jobs.pop(message.number))  # also if it never began
            case Cancel(number):
                if number in self._jobs:
                    self._jobs[number].cancel()
            case Ping():
                self._channel.send(encode(Pong(self._service.turns)))
                if self._turn is None:
                    self._turn = asyncio.create_task(self._take_turn())

    async def end(self) -> None:
        """Give up all jobs, and end the threads."""
        for task in self._jobs.values():
            task.cancel()
        await self._service.aclose(drain=False)

    async def _run(self, request: Run) -> None:
        number = request.number
        try:
            result = await carry_out(self._service, request.job, deadline=request.deadline)
            reply = encode(Done(number, result))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of tokenizers is no Exception
            reply = encode(Failed(number, _portable(error)))
        self._channel.send(reply)

    async def _take_turn(self) -> None:
        """Have a turn as a job does, so that turns are taken also while there are no jobs."""
        await self._service.in_turn(_nothing)
        self._turn = None


def _portable(error: BaseException) -> Exception:
    """The error as the front process will raise it; one that is not of this package is logged here."""
    if isinstance(error, DynamicTinyBertError):
        return error
    _logger.error("a job failed unexpectedly", exc_info=error)
    return InferenceError(f"the process that runs the model failed: {type(error).__name__}: {error}")


def _nothing() -> Any:  # noqa: ANN401
    pass


if __name__ == "__main__":
    main()
