"""`POST /predict` of classifiers: labels in the shape of Hugging Face's text-embeddings-inference."""

from __future__ import annotations

import json
from time import monotonic

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.jobs import ClassifyJob
from dynamic_tinybert.serving.settings import ServerSettings

from .body import read_json
from .openapi import Paths, error_responses, json_request, json_response
from .parameters import Schema, shown
from .running import JobRunner
from .text_requests import checked_text, option_schemas, parse_text_request, request_schema, text_schema

_SHAPES = 'a text, a pair ["text", "text"], or a list of these, each in a list: [["text"], ["text", "text"]]'

Text = tuple[str] | tuple[str, str]


class Classify:
    """The ASGI application of the route."""

    def __init__(self, runner: JobRunner) -> None:
        """Answer requests with a runner of jobs."""
        self._runner = runner
        self._schemas = _option_schemas(runner.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = await read_json(scope, receive, self._runner.settings)
        arrived = monotonic()
        request = parse_text_request(body, ("inputs",), self._schemas)
        texts, is_batch = parse_inputs(request.body["inputs"])
        options = request.model_options | {"truncation": request.options.get("truncate", False)}
        if request.options.get("raw_scores"):
            options["function_to_apply"] = "none"
        classified = await self._runner.run(ClassifyJob(texts, options), receive, request.timeout_ms)
        results = classified.result
        content = json.dumps(results if is_batch else results[0])
        timing = {"server-timing": f"run;dur={1000 * (monotonic() - arrived):.2f}"}
        await Response(content, headers=timing, media_type="application/json")(scope, receive, send)


def parse_inputs(inputs: object) -> tuple[tuple[Text, ...], bool]:
    """The texts of a request, and whether it is a batch, whose response is a list of lists.

    Raises:
        InvalidInputError: They have another shape.
    """
    if isinstance(inputs, str):
        return ((inputs,),), False
    if not isinstance(inputs, list):
        hint = "; only models for question answering take questions" if isinstance(inputs, dict) else ""
        raise InvalidInputError(f"inputs must be {_SHAPES}; not {shown(inputs)}{hint}")
    if not inputs:
        raise InvalidInputError("inputs is an empty list; give at least one text")
    if not isinstance(inputs[0], list):
        return (_text("inputs", inputs),), False
    return tuple(_text(f"inputs[{place}]", own) for place, own in enumerate(inputs)), True


def classify_paths(settings: ServerSettings) -> Paths:
    """The route in the form of OpenAPI."""
    text = text_schema(settings)
    own = {"type": "array", "items": text, "minItems": 1, "maxItems": 2}
    batch = {"type": "array", "items": own, "minItems": 1, "maxItems": settings.max_items}
    inputs = {"oneOf": [text, own, batch], "description": "A text, a pair of texts, or a list of these."}
    labels = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
            "required": ["label", "score"],
        },
        "minItems": 1,
    }
    classified = "All labels, best first; a list of these if inputs is a list of lists."
    request = request_schema({"inputs": inputs}, _option_schemas(settings))
    return {
        "/predict": {
            "post": {
                "operationId": "predict",
                "summary": "Classify texts.",
                "requestBody": json_request(request, {"inputs": "the fox was in the box"}),
                "responses": {
                    "200": json_response(classified, {"oneOf": [labels, {"type": "array", "items": labels}]}),
                    **error_responses(400, 408, 413, 415, 422, 429, 503, 504),
                },
            }
        }
    }


def _option_schemas(settings: ServerSettings) -> dict[str, Schema]:
    return option_schemas(settings, "raw_scores", "truncate", "truncation_direction")


def _text(place: str, own: object) -> Text:
    if not isinstance(own, list):
        raise InvalidInputError(f"{place} must be a list of one text or two, as inputs[0] is, not {shown(own)}")
    match [checked_text(f"{place}[{i}]", text) for i, text in enumerate(own[:3])]:
        case [text]:
            return (text,)
        case [text, second]:
            return text, second
    raise InvalidInputError(f"{place} has {len(own)} items, and one text or a pair was expected; inputs is {_SHAPES}")
