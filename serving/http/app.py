"""The HTTP server as an ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dynamic_tinybert.runtime.common.errors import DynamicTinyBertError
from dynamic_tinybert.serving.jobs import Backend
from dynamic_tinybert.serving.settings import ServerSettings

from .errors import on_http_error, on_known_error, on_unknown_error
from .metrics import Metrics
from .observation import Observed
from .openapi import description
from .page.openapi import page_paths
from .page.routes import page_routes
from .predict import Predict, predict_paths
from .protocol_v2.openapi import protocol_v2_paths
from .protocol_v2.routes import protocol_v2_routes
from .running import JobRunner
from .state import state_paths, state_routes


def make_app(backend: Backend, settings: ServerSettings) -> Starlette:
    """The application that answers requests with a backend. The caller closes the backend."""
    metrics = Metrics(backend)
    runner = JobRunner(backend, settings, metrics)
    groups = [predict_paths(settings), protocol_v2_paths(settings), page_paths(settings), state_paths()]
    openapi = description(groups)

    async def show_openapi(_: Request) -> Response:
        return JSONResponse(openapi)

    app = Starlette(
        routes=[
            Route("/predict", Predict(runner), methods=["POST"]),
            *page_routes(runner),
            *protocol_v2_routes(runner),
            *state_routes(backend, settings, metrics),
            Route("/openapi.json", show_openapi),
        ],
        middleware=[Middleware(Observed, backend, metrics)],
        exception_handlers={
            DynamicTinyBertError: on_known_error,
            HTTPException: on_http_error,
            Exception: on_unknown_error,
        },
    )
    app.router.redirect_slashes = False  # a redirect of a POST may lose its body
    return app
