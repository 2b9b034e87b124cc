"""Ways to send requests to a server. They run in another process (`other_process.py`), and return all replies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import uvloop

from benchmarks.serving.connection import NO_REPLY, Connection, Reply

PATIENCE = 120.0
"""Seconds after the last request was sent; if one has no response by then, TimeoutError is raised."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What became of a request.

    Attributes:
        number: Index of the request among those that were to be sent.
        reply: The response.
        due: When it was to be sent, as a time of `time.monotonic`.
    """

    number: int
    reply: Reply
    due: float


def closed_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float | None = None,
    count: int | None = None,
    pause: float = 0.0,
) -> list[Exchange]:
    """Each connection sends a request when its last one was answered, until the time is over or `count` were sent.

    Requests are taken in their order, again from the first after the last. A connection that the server closed is
    opened again; while the server refuses connections, it is tried every 10 ms. After a status other than 200, a client
    waits for `pause` seconds.
    """
    return uvloop.run(_closed_loop(port, requests, connections, seconds, count, pause))


async def _closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float | None, count: int | None, pause: float
) -> list[Exchange]:
    done: list[Exchange] = []
    begun = 0
    start = monotonic()
    end = start + (PATIENCE if seconds is None else seconds)

    async def send() -> None:
        nonlocal begun
        connection: Connection | None = None
        try:
            while monotonic() < end and (count is None or begun < count):
                if connection is None or not connection.usable:
                    connection = await opened(port, end)
                    if connection is None:
                        return
                number = begun
                begun += 1
                due = monotonic()
                reply = await connection.ask(requests[number % len(requests)])
                done.append(Exchange(number, reply, due))
                if reply.status != 200:
                    await asyncio.sleep(pause)
        finally:
            if connection is not None:
                connection.close()

    async with asyncio.timeout(end - start + PATIENCE), asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(send())
    return done


async def opened(port: int, end: float) -> Connection | None:
    """A new connection; None if there was none by the time `end`."""
    while monotonic() < end:
        try:
            return await Connection.open(port)
        except OSError:
            await asyncio.sleep(0.01)
    return None


def open_loop(port: int, requests: Sequence[bytes], arrivals: Sequence[float]) -> list[Exchange]:
    """Send each request at its time, in seconds from now, whether or not earlier ones were answered.

    Idle connections are used again; where there is none, another is opened.
    """
    return uvloop.run(_open_loop(port, requests, arrivals))


async def _open_loop(port: int, requests: Sequence[bytes], arrivals: Sequence[float]) -> list[Exchange]:
    idle: list[Connection] = []
    start = monotonic() + 0.1

    async def send(number: int, due: float) -> Exchange:
        connection = None
        while idle and connection is None:
            last = idle.pop()
            connection = last if last.usable else None
        try:
            connection = connection or await Connection.open(port)
        except OSError:
            return Exchange(number, Reply(NO_REPLY, b"", due, monotonic()), due)
        reply = await connection.ask(requests[number])
        if reply.status == NO_REPLY:
            connection.close()
        else:
            idle.append(connection)
        return Exchange(number, reply, due)

    tasks: list[asyncio.Task[Exchange]] = []
    for number, arrival in enumerate(arrivals):
        due = start + arrival
        wait = due - monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(send(number, due)))
    async with asyncio.timeout(PATIENCE):
        done = await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return done
