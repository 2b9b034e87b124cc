"""The OpenAPI 3.1 description: what the groups of routes say of themselves, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from .by_task import Kind
from .errors import ERROR_TYPE_BY_STATUS, STATUS_BY_ERROR

Paths = Mapping[str, Any]
"""Path items of OpenAPI by path."""

WHY = {
    400: "The body is not usable JSON.",
    404: "There is no such model, or not in this version.",
    408: "The body did not arrive in time.",
    413: "The body, the number of items or the texts are larger than the server takes.",
    415: "The body has another format.",
    422: "The body has another shape, or holds a value that cannot be used.",
    429: "As many requests wait as the server accepts.",
    500: "The server failed.",
    503: "The server is starting or shutting down, or the process that ran the request ended twice.",
    504: "There was no result in the time that the request, or the server, gives.",
}
ERROR_TYPES = sorted({*ERROR_TYPE_BY_STATUS.values(), *(name for _, name in STATUS_BY_ERROR.values())})


TASKS: Mapping[Kind, str] = {
    "answers": "Question answering with a length-adaptive encoder.",
    "labels": "Classification of texts with a length-adaptive encoder.",
    "ranks": "Ranking of documents with a length-adaptive encoder.",
}


def description(kind: Kind, groups: Iterable[Paths]) -> dict[str, Any]:
    """The description of a server with such a model and these groups of paths."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dynamic-tinybert",
            "description": TASKS[kind],
            "version": version("dynamic-tinybert"),
        },
        "paths": {path: item for group in groups for path, item in group.items()},
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {
                        "error": {"type": "string", "description": "What was wrong, and what to do."},
                        "error_type": {"type": "string", "enum": ERROR_TYPES},
                    },
                    "required": ["error", "error_type"],
                }
            },
            "headers": {
                "Retry-After": {
                    "description": "Whole seconds after which to try again.",
                    "schema": {"type": "integer", "minimum": 1},
                    "required": True,
                }
            },
        },
    }


def error_responses(*statuses: int) -> dict[str, Any]:
    """Responses of OpenAPI for these statuses, and 500."""
    responses: dict[str, Any] = {}
    for status in (*statuses, 500):
        response = json_response(WHY[status], {"$ref": "#/components/schemas/Error"})
        if status in (429, 503):
            response["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
        responses[str(status)] = response
    return responses


def json_response(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A response of OpenAPI with a body of JSON."""
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def json_request(schema: Mapping[str, Any], example: object) -> dict[str, Any]:
    """A request body of OpenAPI."""
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
