"""The HTTP server as an ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dynamic_tinybert.runtime.common.errors import DynamicTinyBertError
from dynamic_tinybert.serving.jobs import Backend
from dynamic_tinybert.serving.settings import ServerSettings

from .by_task import ByTask, Kind, kind_of, loaded_facts
from .classify import Classify, classify_paths
from .errors import on_http_error, on_known_error, on_unknown_error
from .metrics import Metrics
from .observation import Observed
from .openapi import Paths, description
from .page.explain import Explain
from .page.openapi import explain_paths, page_paths
from .page.routes import page_routes
from .predict import Predict, predict_paths
from .protocol_v2.openapi import protocol_v2_paths
from .protocol_v2.routes import protocol_v2_routes
from .rerank import CohereRerank, Rerank, rerank_paths
from .running import JobRunner
from .state import state_paths, state_routes


def make_app(backend: Backend, settings: ServerSettings) -> Starlette:
    """The application that answers requests with a backend. The caller closes the backend."""
    metrics = Metrics(backend)
    runner = JobRunner(backend, settings, metrics)
    classify, rerank, cohere = Classify(runner), Rerank(runner), CohereRerank(runner)

    async def show_openapi(_: Request) -> Response:
        kind = kind_of(loaded_facts(backend))
        return JSONResponse(description(kind, _paths(kind, settings)))

    app = Starlette(
        routes=[
            _post("/predict", ByTask(backend, {"answers": Predict(runner), "labels": classify, "ranks": classify})),
            _post("/rerank", ByTask(backend, {"ranks": rerank})),
            _post("/v1/rerank", ByTask(backend, {"ranks": cohere})),
            _post("/explain", ByTask(backend, {"answers": Explain(runner)})),
            *page_routes(backend),
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


def _post(path: str, app: ASGIApp) -> Route:
    return Route(path, app, methods=["POST"])


def _paths(kind: Kind, settings: ServerSettings) -> list[Paths]:
    """What there is for a kind of model, in the form of OpenAPI."""
    own: dict[Kind, list[Paths]] = {
        "answers": [predict_paths(settings), explain_paths(settings)],
        "labels": [classify_paths(settings)],
        "ranks": [rerank_paths(settings), classify_paths(settings)],
    }
    return [*own[kind], protocol_v2_paths(kind, settings), page_paths(), state_paths()]
