"""`POST /explain`: an answer together with the words that each layer dropped."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.http.body import read_json
from dynamic_tinybert.serving.http.parameters import checked_parameters, parameter_schemas, shown
from dynamic_tinybert.serving.http.running import JobRunner
from dynamic_tinybert.serving.jobs import AnswerJob, ExplainJob
from dynamic_tinybert.serving.settings import ServerSettings

MOST_CHARACTERS = 20_000
"""Characters of a text that can be explained. A result has an entry for each token, which the event loop writes as
JSON: some 40 ms for so many characters, in which no other request is served."""
_TEXTS = ("question", "context")
_LIMITS = ("budget_ms", "max_f1_loss")


def explain_schemas(settings: ServerSettings) -> dict[str, dict[str, Any]]:
    """JSON Schema of what a body may have besides the two texts, by name."""
    schemas = parameter_schemas(settings)
    name = {"type": ["string", "null"], "description": "Name of a length configuration, as GET /info lists them."}
    return {"length_config": name, **{limit: schemas[limit] for limit in _LIMITS}}


class Explain:
    """The ASGI application of the route.

    The question is answered first, as `POST /predict` does: that is what a budget chooses for and what is timed. Then
    it is explained with the length configuration that ran.
    """

    def __init__(self, runner: JobRunner) -> None:
        """Answer requests with a runner of jobs."""
        self._runner = runner
        self._schemas = explain_schemas(runner.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = await read_json(scope, receive, self._runner.settings)
        start = perf_counter()
        question, context = _texts(body)
        options = checked_parameters({name: body[name] for name in body if name not in _TEXTS}, self._schemas)
        answered = await self._runner.run(AnswerJob((question,), (context,), options), receive)
        spent_ms = 1e3 * (perf_counter() - start)
        ((answer,),) = answered.answers
        job = ExplainJob(question, context, answered.length_config)
        left_ms = 1e3 * self._runner.settings.request_timeout_s - spent_ms
        explained = await self._runner.run(job, receive, max(left_ms, 1.0))
        timed = {"ms": answer.get("ms", spent_ms), "budget_met": answer.get("budget_met")}
        await Response(json.dumps(explained | timed), media_type="application/json")(scope, receive, send)


def _texts(body: object) -> tuple[str, str]:
    """Question and context of a request.

    Raises:
        InvalidInputError: The body has another shape.
        HTTPException: 413 if the context is too long to explain.
    """
    if not isinstance(body, dict):
        raise InvalidInputError(f'the body must be an object {{"question": …, "context": …}}, not {shown(body)}')
    for name in _TEXTS:
        if name not in body:
            raise InvalidInputError(f"the body has no {name}")
        if not isinstance(body[name], str):
            raise InvalidInputError(f"{name} must be a text, not {shown(body[name])}")
    if len(body["context"]) > MOST_CHARACTERS:
        raise HTTPException(
            413, f"the context has {len(body['context'])} characters; at most {MOST_CHARACTERS} can be explained"
        )
    return body["question"], body["context"]
