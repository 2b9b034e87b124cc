"""The page, and what it asks, in the form of OpenAPI."""

from __future__ import annotations

from typing import Any

from dynamic_tinybert.serving.http.openapi import Paths, error_responses, json_request, json_response
from dynamic_tinybert.serving.settings import ServerSettings

from .explain import MOST_CHARACTERS, explain_schemas

_OFFSET = {"type": "integer", "minimum": 0}
_OFFSET_OR_NULL = {"type": ["integer", "null"], "minimum": 0}
_DROPPED_AT = {"type": ["integer", "null"], "minimum": 0, "description": "The layer that dropped it; null if none did."}
_COUNTS = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def page_paths() -> Paths:
    """The page, whose further files are not listed."""
    page = {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
    summary = "A page: on a server for question answering, a person asks and sees which words each layer dropped."
    return {"/": {"get": {"operationId": "page", "summary": summary, "responses": {"200": page}}}}


def explain_paths(settings: ServerSettings) -> Paths:
    """`POST /explain`, which the page asks."""
    text = {"type": "string", "minLength": 1, "maxLength": settings.max_characters}
    request = {
        "type": "object",
        "properties": {
            "question": text,
            "context": {**text, "maxLength": min(settings.max_characters, MOST_CHARACTERS)},
            **explain_schemas(settings),
        },
        "required": ["question", "context"],
        "additionalProperties": False,
    }
    example = {"question": "Where do I live?", "context": "My name is Clara and I live in Berkeley.", "budget_ms": 5}
    responses = {
        "200": json_response("The answer, and what became of each word and token.", _explanation()),
        **error_responses(400, 408, 413, 415, 422, 429, 503, 504),
    }
    return {
        "/explain": {
            "post": {
                "operationId": "explain",
                "summary": "Answer a question, and say which words each layer dropped.",
                "requestBody": json_request(request, example),
                "responses": responses,
            }
        },
    }


def _explanation() -> dict[str, Any]:
    """JSON Schema of a response."""
    answer = _object(score={"type": "number", "minimum": 0}, start=_OFFSET, end=_OFFSET, answer={"type": "string"})
    segment = {"type": "string", "enum": ["question", "context"]}
    token = _object(
        text={"type": "string"},
        segment={"enum": ["question", "context", None], "description": "null for special tokens, as start and end."},
        start=_OFFSET_OR_NULL,
        end=_OFFSET_OR_NULL,
        dropped_at=_DROPPED_AT,
    )
    word = _object(text={"type": "string"}, segment=segment, start=_OFFSET, end=_OFFSET, dropped_at=_DROPPED_AT)
    window = _object(
        kept={**_COUNTS, "description": "For each layer, the number of tokens that it kept."},
        tokens={"type": "array", "items": token},
        words={"type": "array", "items": word},
    )
    return _object(
        question={"type": "string"},
        context={"type": "string"},
        answer=answer,
        answer_window={**_OFFSET, "description": "Index of the window that the answer comes from."},
        length_config_name={"type": ["string", "null"], "description": "What ran."},
        length_config={"type": "object", "description": "Keep ratios and thresholds of each layer."},
        macs={**_OFFSET, "description": "Executed multiply-accumulates."},
        full_macs={**_OFFSET, "description": "Multiply-accumulates that full would execute."},
        macs_fewer={"type": "number", "description": "full_macs divided by macs."},
        windows={"type": "array", "items": window, "minItems": 1},
        ms={"type": "number", "minimum": 0, "description": "Milliseconds that answering took, without explaining."},
        budget_met={
            "type": ["boolean", "null"],
            "description": "Whether these are at most budget_ms; null without one.",
        },
    )


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
