"""What the server says of itself: `GET /health`, `/info` and `/metrics`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dynamic_tinybert.runtime.common.errors import ClosedError, StartingError
from dynamic_tinybert.serving.jobs import Backend
from dynamic_tinybert.serving.settings import ServerSettings

from .by_task import loaded_facts
from .metrics import CONTENT_TYPE, Metrics
from .openapi import Paths, error_responses, json_response

LIMITS = ("max_queued", "max_body_bytes", "max_items", "max_characters", "max_top_k", "request_timeout_s")


def state_routes(backend: Backend, settings: ServerSettings, metrics: Metrics) -> list[Route]:
    """The routes."""

    async def health(_: Request) -> Response:
        check_ready(backend)
        return JSONResponse({"status": "ready"})

    async def info(_: Request) -> Response:
        facts = loaded_facts(backend)
        limits = {name: getattr(settings, name) for name in LIMITS}
        return JSONResponse({"model": asdict(facts), "limits": limits})

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return [Route("/health", health), Route("/info", info), Route("/metrics", show_metrics)]


def state_paths() -> Paths:
    """The routes in the form of OpenAPI."""

    def get(operation: str, text: str, response: dict[str, Any], *statuses: int) -> dict[str, Any]:
        responses = {"200": response, **error_responses(*statuses)}
        return {"get": {"operationId": operation, "summary": text, "responses": responses}}

    ready = {"type": "object", "properties": {"status": {"const": "ready"}}, "required": ["status"]}
    info = {
        "type": "object",
        "properties": {"model": {"type": "object"}, "limits": {"type": "object"}},
        "required": ["model", "limits"],
    }
    samples = {"description": "Metrics.", "content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}
    return {
        "/health": get("health", "Whether requests are taken.", json_response("They are.", ready), 503),
        "/info": get("info", "The model, and the limits of requests.", json_response("Both.", info), 503),
        "/metrics": get("metrics", "Metrics in the format of Prometheus.", samples),
    }


def check_ready(backend: Backend) -> None:
    """Raise what says why a backend takes no jobs, if it takes none.

    Raises:
        ClosedError: It is being closed.
        StartingError: It has not loaded its model, or is replacing all of its workers.
    """
    if backend.draining:
        raise ClosedError("the server is shutting down and takes no further requests")
    if not backend.ready:
        raise StartingError("the model is not loaded yet")
