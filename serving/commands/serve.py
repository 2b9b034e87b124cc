"""``dynamic-tinybert serve``. Its options are the fields of `ServerSettings`."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.settings import ServerSettings, environment_variable


def serve(**options: Any) -> None:  # noqa: ANN401 - `_signature` lists them
    """Answer questions, classify texts or rank documents over HTTP, by the bundle, until SIGTERM or Ctrl-C.

    Accepted requests are still answered then. GET /openapi.json describes what can be asked. Each option has an
    environment variable.
    """
    from dynamic_tinybert.serving import http

    run_server = http.run_server  # raises if the extra is missing, before anything is done
    try:
        settings = ServerSettings(**options)
    except InvalidInputError as error:
        raise typer.BadParameter(str(error)) from error

    from dynamic_tinybert.serving.workers.options import ModelOptions, Timeouts
    from dynamic_tinybert.serving.workers.pool import WorkerPool

    def make_pool() -> WorkerPool:
        return WorkerPool(
            ModelOptions(settings.bundle, settings.model_name),
            workers=settings.workers,
            max_queued=settings.max_queued,
            threads=settings.num_threads,
            timeouts=Timeouts(drain_s=settings.drain_timeout_s + 0.5),  # the server is the one that says so
        )

    if not run_server(make_pool, settings):
        sys.exit(1)


def _signature() -> inspect.Signature:
    hints = get_type_hints(ServerSettings)
    parameters = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default,
            annotation=Annotated[
                hints[one.name],
                typer.Option(
                    f"--{one.name.replace('_', '-')}", help=one.metadata["help"], envvar=environment_variable(one.name)
                ),
            ],
        )
        for one in fields(ServerSettings)
    ]
    return inspect.Signature(parameters)


serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__annotations__ = {one.name: one.annotation for one in serve.__signature__.parameters.values()}  # type: ignore[attr-defined]
