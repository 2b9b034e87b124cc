"""The routes of the Open Inference Protocol."""

from __future__ import annotations

from importlib.metadata import version

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dynamic_tinybert.serving.http.body import header, read_body
from dynamic_tinybert.serving.http.by_task import kind_of, loaded_facts
from dynamic_tinybert.serving.http.running import JobRunner
from dynamic_tinybert.serving.http.state import check_ready
from dynamic_tinybert.serving.jobs import Backend, ModelFacts

from .decompression import decompressed
from .models import MODELS, Model
from .requests import HEADER_LENGTH, parse_request
from .responses import response_body

SERVER = "dynamic-tinybert"
EXTENSIONS = ("binary_tensor_data", "parameters")
"""Triton's names of the extensions that this server has."""
MODEL_PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")


def protocol_v2_routes(runner: JobRunner) -> list[Route]:
    """The routes, for the models of the runner's backend."""
    backend = runner.backend

    async def server_metadata(_: Request) -> Response:
        return JSONResponse({"name": SERVER, "version": version("dynamic-tinybert"), "extensions": EXTENSIONS})

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        check_ready(backend)
        return JSONResponse({"ready": True})

    async def model_metadata(request: Request) -> Response:
        facts, model = asked_model(backend, request.path_params)
        return JSONResponse(model.metadata(facts))

    async def model_ready(request: Request) -> Response:
        facts, model = asked_model(backend, request.path_params)
        check_ready(backend)
        return JSONResponse({"name": facts.name + model.suffix, "ready": True})

    infer = Infer(runner)
    return [
        Route("/v2", server_metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        *(Route(path, model_metadata) for path in MODEL_PATHS),
        *(Route(path + "/ready", model_ready) for path in MODEL_PATHS),
        *(Route(path + "/infer", infer, methods=["POST"]) for path in MODEL_PATHS),
    ]


class Infer:
    """The ASGI application that runs a model."""

    def __init__(self, runner: JobRunner) -> None:
        """Answer requests with a runner of jobs."""
        self._runner = runner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        settings = self._runner.settings
        facts, model = asked_model(self._runner.backend, scope["path_params"])
        sent = await read_body(scope, receive, settings)
        body = decompressed(sent, header(scope, b"content-encoding"), settings.max_body_bytes)
        request = parse_request(body, header(scope, HEADER_LENGTH.lower().encode()), model, facts, settings)
        job = model.job(request.inputs, request.options)
        result = await self._runner.run(job, receive, request.timeout_ms)
        content, json_length = response_body(model, facts, request, model.result(result))
        kind = "application/json" if json_length is None else "application/octet-stream"
        headers = {} if json_length is None else {HEADER_LENGTH: str(json_length)}
        await Response(content, headers=headers, media_type=kind)(scope, receive, send)


def asked_model(backend: Backend, path: dict[str, str]) -> tuple[ModelFacts, Model]:
    """The model that the parameters of a path name, and what the server says about the bundle behind it.

    Raises:
        StartingError: It is not loaded yet.
        HTTPException: 404 if there is no such model, or not in this version.
    """
    facts = loaded_facts(backend)
    models = {facts.name + model.suffix: model for model in MODELS[kind_of(facts)]}
    name, asked_version = path["name"], path.get("version", facts.version)
    if name not in models:
        raise HTTPException(404, f"there is no model {name[:100]!r}; there are {' and '.join(models)}")
    if asked_version != facts.version:
        raise HTTPException(404, f"model {name} has no version {asked_version[:100]!r}; it has {facts.version}")
    return facts, models[name]
