"""A server's life: it listens at once, loads the model, takes requests until a signal, and drains."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Protocol

import uvicorn

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.jobs import Backend
from dynamic_tinybert.serving.settings import ServerSettings

from .app import make_app
from .connection import patient_connection

SIGNALS = (signal.SIGTERM, signal.SIGINT)
FAREWELL_S = 1.0
"""Seconds after the last answer, in which clients that send one more request are asked to connect elsewhere."""

_logger = logging.getLogger(__name__)


class StartableBackend(Backend, Protocol):
    """A backend that loads its model when it is told to."""

    async def start(self) -> None:
        """Load the model; return when jobs are taken."""


def run_server(make_backend: Callable[[], StartableBackend], settings: ServerSettings) -> bool:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once. Must be called in the main thread.

    When requests are taken, a line with the address is printed on standard output.

    Args:
        make_backend: Makes the backend; called in the event loop.
        settings: Where to listen, and limits.

    Returns:
        Whether all accepted requests were finished within `settings.drain_timeout_s`.

    Raises:
        InvalidInputError: The address cannot be listened on.
        DynamicTinyBertError: The backend could not be started.
    """
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    loop_factory = uvicorn.Config(_nothing, log_config=None).get_loop_factory()
    with closing(listener(settings.host, settings.port)) as own, asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_serve(make_backend, settings, own))


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes one that is free.

    Raises:
        InvalidInputError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that is none
        why = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"cannot listen on host {host} and port {port}: {why}") from error


def make_uvicorn(backend: Backend, settings: ServerSettings) -> _Server:
    """The server of uvicorn, without its handling of signals, for the application of a backend."""
    config = uvicorn.Config(
        make_app(backend, settings),
        http=patient_connection(settings.receive_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # fractions work as well
        timeout_graceful_shutdown=3,  # for the last responses
    )
    return _Server(config)


class _Server(uvicorn.Server):
    def stop_listening(self) -> None:
        """Accept no more connections. Those that are open can still send a request."""
        if self.started:
            for server in self.servers:
                server.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_serve`: uvicorn ends by the signal, and without draining what waits."""
        yield


async def _serve(make_backend: Callable[[], StartableBackend], settings: ServerSettings, own: socket.socket) -> bool:
    stop = asyncio.create_task(_stop_signal())
    backend = make_backend()
    server = make_uvicorn(backend, settings)
    serving = asyncio.create_task(server.serve(sockets=[own]))
    starting = asyncio.create_task(backend.start())
    try:
        await asyncio.wait((starting, stop, serving), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            print(f"listening on {_url(own)}", flush=True)
            await asyncio.wait((stop, serving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_drained = await _drained(backend, server, own, settings.drain_timeout_s)
        server.should_exit = True
        await serving
        for task in (starting, stop):
            task.cancel()
        await asyncio.gather(starting, stop, return_exceptions=True)
    return has_drained


async def _stop_signal() -> None:
    """Wait for a signal; from then on, the next one has the effect that the system gives it."""
    loop = asyncio.get_running_loop()
    received = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, received.set)
    await received.wait()
    for number in SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


async def _drained(backend: Backend, server: _Server, own: socket.socket, seconds: float) -> bool:
    """Close the backend and wait for the responses; false if this took too long.

    The server goes on to listen meanwhile: a new request gets a clean refusal, and is asked to connect elsewhere. Then
    it stops listening first, so that no connection is closed in the moment in which its client sends a request.
    """
    try:
        async with asyncio.timeout(seconds):
            await backend.aclose()
    except TimeoutError:
        _logger.error("accepted requests were not finished within %g s; they are given up", seconds)
        return False
    server.stop_listening()
    own.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            while server.server_state.connections:
                await asyncio.sleep(0.01)
    return True


def _url(own: socket.socket) -> str:
    host, port = own.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _nothing() -> None:
    pass
