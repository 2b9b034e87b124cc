"""The routes of the page."""

from __future__ import annotations

from starlette.routing import Route

from dynamic_tinybert.serving.http.running import JobRunner

from .explain import Explain
from .files import file_routes


def page_routes(runner: JobRunner) -> list[Route]:
    """`POST /explain`, and the files that show its results."""
    return [Route("/explain", Explain(runner), methods=["POST"]), *file_routes()]
