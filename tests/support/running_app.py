"""The HTTP server on a port of this machine, in a thread of the test's process."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.serving.http.app import make_app
from dynamic_tinybert.serving.settings import ServerSettings

from support.direct_backend import DirectBackend


@contextmanager
def running_server(answerer: QuestionAnswerer, **settings: object) -> Iterator[str]:
    """Serve an answerer; gives ``host:port``."""
    backend = DirectBackend(AsyncQuestionAnswerer(answerer))
    try:
        with running_app(make_app(backend, ServerSettings(**settings))) as address:
            yield address
    finally:
        asyncio.run(backend.aclose())


@contextmanager
def running_app(app: ASGIApp) -> Iterator[str]:
    """Run an application; gives ``host:port``."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connections wait until the server has started
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield "127.0.0.1:{1}".format(*listening.getsockname())
        finally:
            server.should_exit = True
            thread.join()
