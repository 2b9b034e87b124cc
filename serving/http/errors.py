"""Every error of the HTTP server as a status and JSON with the keys `error` and `error_type`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
    DeadlineExceededError,
    DynamicTinyBertError,
    InvalidInputError,
    LengthConfigError,
    OverloadedError,
    StartingError,
    WorkerLostError,
)

LONGEST_MESSAGE = 1000
"""Characters of an error's message that are sent; messages quote values, which may be as long as a body."""
ERROR_TYPE = "dynamic_tinybert.error_type"
"""Key of the ASGI scope under which the `error_type` of a failed request is kept, for its metric."""

STATUS_BY_ERROR: Mapping[type[DynamicTinyBertError], tuple[int, str]] = {
    InvalidInputError: (422, "invalid_input"),
    LengthConfigError: (422, "length_config"),
    OverloadedError: (429, "overloaded"),
    StartingError: (503, "starting"),
    ClosedError: (503, "draining"),
    WorkerLostError: (503, "worker_lost"),
    DeadlineExceededError: (504, "deadline_exceeded"),
}
"""HTTP status and `error_type` of exceptions that say what a client can do; all others are internal errors."""

ERROR_TYPE_BY_STATUS: Mapping[int, str] = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    408: "receive_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal",
}
"""The `error_type` of errors of HTTP itself, which are raised as Starlette's HTTPException."""

DETAIL_BY_STATUS: Mapping[int, str] = {
    404: "there is nothing at {path}; GET /openapi.json lists what there is",
    405: "{path} does not take the method {method}; it takes {allow}",
}


def error_response(status: int, message: str, error_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response with an error."""
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + " …"
    body = json.dumps({"error": message, "error_type": error_type})
    return Response(body, status, headers, media_type="application/json")


async def on_known_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of this package's exceptions."""
    assert isinstance(error, DynamicTinyBertError)
    kinds = (kind for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)
    kind = next(kinds, None)
    if kind is None:
        raise error  # a failure of the server, which `on_unknown_error` hides and the server logs
    status, error_type = STATUS_BY_ERROR[kind]
    request.scope[ERROR_TYPE] = error_type
    headers = {"retry-after": str(retry_after(error))} if status in (429, 503) else None
    return error_response(status, str(error), error_type, headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of errors of HTTP itself."""
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, error.headers or {}
    allow = ", ".join(sorted(headers.get("Allow", "").split(", ")))
    message = error.detail
    if status in DETAIL_BY_STATUS and message == HTTPStatus(status).phrase:  # Starlette's own, which says no more
        message = DETAIL_BY_STATUS[status].format(path=request.url.path, method=request.method, allow=allow)
    error_type = ERROR_TYPE_BY_STATUS[status]
    request.scope[ERROR_TYPE] = error_type
    return error_response(status, message, error_type, headers)


async def on_unknown_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of all other exceptions, which it raises again, so that the server logs them."""
    return error_response(500, "internal error; the server's log says more", ERROR_TYPE_BY_STATUS[500])


def retry_after(error: DynamicTinyBertError) -> int:
    """Whole seconds after which to try again, at least 1."""
    seconds = error.retry_after_s if isinstance(error, OverloadedError) else None
    return max(1, math.ceil(seconds or 0))
