"""Worker pools of a test, and jobs that harm workers."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dynamic_tinybert.serving.jobs import AnswerJob
from dynamic_tinybert.serving.workers.channel import Channel, open_channel
from dynamic_tinybert.serving.workers.messages import Message
from dynamic_tinybert.serving.workers.options import ModelOptions, Timeouts
from dynamic_tinybert.serving.workers.pool import WorkerPool


@asynccontextmanager
async def pool_of(bundle: Path | None, **options: Any) -> AsyncIterator[WorkerPool]:  # noqa: ANN401 - those of the pool
    """A started pool of workers with one thread each."""
    model = ModelOptions(bundle, warm_up=False, arguments={"num_threads": 1})
    pool = WorkerPool(model, **{"timeouts": Timeouts(drain_s=60), **options})
    await pool.start()
    try:
        yield pool
    finally:
        await pool.aclose()


@asynccontextmanager
async def worker_channel() -> AsyncIterator[tuple[Channel, list[Message]]]:
    """The channel of a worker, and the messages that arrive at its other end."""
    ours, theirs = socket.socketpair()
    replies: list[Message] = []
    front = await open_channel(ours, replies.append, lambda: None)
    channel = await open_channel(theirs, print, lambda: None)
    try:
        yield channel, replies
    finally:
        channel.close()
        front.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


class Unpickled:
    """Becomes the result of a call when the worker reads it, in its event loop."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def job_that_calls(function: Callable[..., object], *arguments: object) -> AnswerJob:
    """A job with which a worker calls a function of the standard library when it reads the job."""
    return AnswerJob(("who?",), ("She.",), {"top_k": Unpickled(function, *arguments)})


def job_that_holds_a_thread() -> AnswerJob:
    """A job that one of a worker's threads never comes to the end of."""
    return AnswerJob(map(time.sleep, [1e6]), ("She.",))
