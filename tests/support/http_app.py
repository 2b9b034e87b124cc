"""The HTTP application on a tiny model in the test's own process, asked without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from dynamic_tinybert import AsyncQuestionAnswerer
from dynamic_tinybert.serving.http.app import make_app
from dynamic_tinybert.serving.settings import ServerSettings

from .direct_backend import DirectBackend

QUESTION, CONTEXT = "where was the a ?", "the a was in 2 1 . the b was in 3 3 ."


@dataclass(frozen=True)
class AskedApp:
    """An application, the backend behind it, and a client."""

    client: httpx.AsyncClient
    backend: DirectBackend


@asynccontextmanager
async def asked_app(bundle: Path, **settings: object) -> AsyncIterator[AskedApp]:
    """An application for `bundle`, with settings of `ServerSettings`."""
    async with AsyncQuestionAnswerer.from_pretrained(bundle, num_threads=1) as answerer:
        backend = DirectBackend(answerer)
        app = make_app(backend, ServerSettings(**settings))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield AskedApp(client, backend)
