"""`POST /predict`: answers in the shape of Hugging Face's inference API for question answering."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.answers import Answer
from dynamic_tinybert.serving.jobs import AnswerJob
from dynamic_tinybert.serving.settings import ServerSettings

from .body import read_json
from .openapi import Paths, error_responses, json_request, json_response
from .parameters import checked_parameters, parameter_schemas, shown
from .running import JobRunner

_ANSWER = {
    "type": "object",
    "properties": {
        "score": {"type": "number", "minimum": 0, "description": "Probability of the answer."},
        "start": {"type": "integer", "minimum": 0, "description": "First character of the answer in the context."},
        "end": {"type": "integer", "minimum": 0, "description": "End of the answer in the context, exclusive."},
        "answer": {"type": "string"},
        "length_config": {"type": ["string", "null"], "description": "What ran; only with a budget, as all below."},
        "ms": {"type": "number", "description": "Milliseconds that answering took."},
        "budget_met": {"type": ["boolean", "null"], "description": "Whether it took no longer than budget_ms."},
    },
    "required": ["score", "start", "end", "answer"],
}


class Predict:
    """The ASGI application of the route."""

    def __init__(self, runner: JobRunner) -> None:
        """Answer requests with a runner of jobs."""
        self._runner = runner
        self._schemas = parameter_schemas(runner.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = await read_json(scope, receive, self._runner.settings)
        arrived = monotonic()
        questions, contexts, parameters = _parts(body)
        options = checked_parameters(parameters, self._schemas)
        timeout_ms = options.pop("timeout_ms", None)
        job = AnswerJob(questions, contexts, options, arrived)
        answered = await self._runner.run(job, receive, timeout_ms)
        results = [_in_shape(answers, options.get("top_k", 1)) for answers in answered.answers]
        content = json.dumps(results if isinstance(body["inputs"], list) else results[0])
        timing = {"server-timing": f"run;dur={1000 * (monotonic() - arrived):.2f}"}
        await Response(content, headers=timing, media_type="application/json")(scope, receive, send)


def predict_paths(settings: ServerSettings) -> Paths:
    """The route in the form of OpenAPI."""
    text = {"type": "string", "minLength": 1, "maxLength": settings.max_characters}
    pair = {
        "type": "object",
        "properties": {"question": text, "context": text},
        "required": ["question", "context"],
        "additionalProperties": False,
    }
    pairs = {"type": "array", "items": pair, "minItems": 1, "maxItems": settings.max_items}
    parameters = {
        "type": ["object", "null"],
        "properties": parameter_schemas(settings),
        "additionalProperties": False,
    }
    request = {
        "type": "object",
        "properties": {"inputs": {"oneOf": [pair, pairs]}, "parameters": parameters},
        "required": ["inputs"],
        "additionalProperties": False,
    }
    example = {"inputs": {"question": "Where do I live?", "context": "My name is Clara and I live in Berkeley."}}
    answers = {"oneOf": [_ANSWER, {"type": "array", "items": _ANSWER}]}
    answered = "The answer, or a list of answers if top_k is above 1; a list of these if inputs is a list."
    return {
        "/predict": {
            "post": {
                "operationId": "predict",
                "summary": "Answer questions about texts.",
                "requestBody": json_request(request, example),
                "responses": {
                    "200": json_response(answered, {"oneOf": [_ANSWER, {"type": "array", "items": answers}]}),
                    **error_responses(400, 408, 413, 415, 422, 429, 503, 504),
                },
            }
        }
    }


def _parts(body: object) -> tuple[tuple[str, ...], tuple[str, ...], object]:
    """Questions, contexts and parameters of a request.

    Raises:
        InvalidInputError: The body has another shape.
    """
    if not isinstance(body, dict) or "inputs" not in body:
        found = f"an object with the keys {_names(body)}" if isinstance(body, dict) else shown(body)
        raise InvalidInputError(f'the body must be an object {{"inputs": …, "parameters": …}}, not {found}')
    unknown = [name for name in body if name not in ("inputs", "parameters")]
    if unknown:
        raise InvalidInputError(f"unknown keys {_names(unknown)} in the body; there are inputs and parameters")
    inputs = body["inputs"]
    if isinstance(inputs, list):
        if not inputs:
            raise InvalidInputError("inputs is an empty list; give at least one question")
        pairs = [_pair(f"inputs[{i}]", pair) for i, pair in enumerate(inputs)]
    else:
        pairs = [_pair("inputs", inputs)]
    questions, contexts = zip(*pairs, strict=True)
    return questions, contexts, body.get("parameters")


def _pair(place: str, pair: object) -> tuple[str, str]:
    if not isinstance(pair, dict) or pair.keys() != {"question", "context"}:
        found = f"an object with the keys {_names(pair)}" if isinstance(pair, dict) else shown(pair)
        raise InvalidInputError(f'{place} must be an object {{"question": …, "context": …}}, not {found}')
    for name in ("question", "context"):
        if not isinstance(pair[name], str):
            raise InvalidInputError(f"{place}.{name} must be a text, not {shown(pair[name])}")
    return pair["question"], pair["context"]


def _names(names: Any) -> str:  # noqa: ANN401 - an iterable of texts
    return ", ".join(repr(name[:40]) for name in sorted(names)[:5]) or "(none)"


def _in_shape(answers: list[Answer], top_k: int) -> Answer | list[Answer]:
    """One answer if one was asked for, else a list, however many there are."""
    return answers[0] if top_k == 1 else answers
