"""The real HTTP server on loopback, with a backend in a thread of the test's process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynamic_tinybert import LengthAdaptiveModel
from dynamic_tinybert.serving.http.server import listener, make_uvicorn
from dynamic_tinybert.serving.service import AsyncService
from dynamic_tinybert.serving.settings import ServerSettings
from dynamic_tinybert.serving.tasks import service_for

from .direct_backend import DirectBackend


@dataclass(frozen=True)
class LiveServer:
    """A server that listens.

    Attributes:
        host: Where it listens.
        port: Likewise.
        backend: What answers.
        connections: uvicorn's objects for the open connections.
    """

    host: str
    port: int
    backend: DirectBackend
    connections: set[object]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        """A connection, for what no client library would send."""
        return socket.create_connection((self.host, self.port), timeout=30)


@contextmanager
def live_server(bundle: Path | AsyncService, **settings: object) -> Iterator[LiveServer]:
    """A server on a free port for a bundle or a service, which it closes; `settings` are of `ServerSettings`."""
    with closing(listener("127.0.0.1", 0)) as own:
        host, port = own.getsockname()
        if isinstance(bundle, Path):
            bundle = service_for(LengthAdaptiveModel.from_pretrained(bundle, num_threads=1))
        backend = DirectBackend(bundle)
        server = make_uvicorn(backend, ServerSettings(**settings))

        async def serve() -> None:
            await server.serve(sockets=[own])
            await backend.aclose()

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            yield LiveServer(host, port, backend, server.server_state.connections)
        finally:
            server.should_exit = True
            thread.join()
