"""The HTTP application in the test's own process, asked without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from dynamic_tinybert import LengthAdaptiveModel
from dynamic_tinybert.serving.http.app import make_app
from dynamic_tinybert.serving.service import AsyncService
from dynamic_tinybert.serving.settings import ServerSettings
from dynamic_tinybert.serving.tasks import service_for

from .direct_backend import DirectBackend

QUESTION, CONTEXT = "where was the a ?", "the a was in 2 1 . the b was in 3 3 ."


@dataclass(frozen=True)
class AskedApp:
    """An application, the backend behind it, and a client."""

    client: httpx.AsyncClient
    backend: DirectBackend

    async def metric(self, sample: str) -> float:
        """The value of a sample of /metrics; 0 if there is none."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} ")), 0.0)


@asynccontextmanager
async def asked_app(bundle: Path | AsyncService, **settings: object) -> AsyncIterator[AskedApp]:
    """An application for a bundle, or for a service that the caller closes; `settings` are of `ServerSettings`."""
    if isinstance(bundle, Path):
        async with (
            service_for(LengthAdaptiveModel.from_pretrained(bundle, num_threads=1)) as service,
            asked_app(service, **settings) as asked,
        ):
            yield asked
        return
    backend = DirectBackend(bundle)
    transport = httpx.ASGITransport(make_app(backend, ServerSettings(**settings)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield AskedApp(client, backend)
