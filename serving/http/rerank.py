"""`POST /rerank`, in the shape of text-embeddings-inference, and `POST /v1/rerank`, in the shape of Cohere."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any
from uuid import uuid4

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import RankedDocument
from dynamic_tinybert.serving.jobs import RankJob
from dynamic_tinybert.serving.settings import ServerSettings

from .body import read_json
from .openapi import Paths, error_responses, json_request, json_response
from .parameters import Schema, shown
from .running import JobRunner
from .text_requests import (
    TextRequest,
    checked_list,
    checked_text,
    option_schemas,
    parse_text_request,
    request_schema,
    text_schema,
)

_EXAMPLES = ["the fox was in the box", "the cat was in the hat"]


class Rerank:
    """The ASGI application of `POST /rerank`."""

    texts = ("query", "texts")

    def __init__(self, runner: JobRunner) -> None:
        """Answer requests with a runner of jobs."""
        self._runner = runner
        self._schemas = self.schemas(runner.settings)

    @staticmethod
    def schemas(settings: ServerSettings) -> dict[str, Schema]:
        """JSON Schema of the options, by name."""
        return option_schemas(settings, "raw_scores", "return_text", "truncate", "truncation_direction", "top_n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = await read_json(scope, receive, self._runner.settings)
        arrived = monotonic()
        request = parse_text_request(body, self.texts, self._schemas)
        query, documents = checked_text("query", request.body["query"]), self.documents(request.body)
        raw_scores = request.options.get("raw_scores", False)
        job = RankJob(query, documents, raw_scores, request.model_options)
        ranked = await self._runner.run(job, receive, request.timeout_ms)
        content = json.dumps(self.response(request, documents, ranked.result))
        timing = {"server-timing": f"run;dur={1000 * (monotonic() - arrived):.2f}"}
        await Response(content, headers=timing, media_type="application/json")(scope, receive, send)

    def documents(self, body: Any) -> tuple[str, ...]:  # noqa: ANN401 - an object of JSON
        """The documents of a body.

        Raises:
            InvalidInputError: They have another shape.
        """
        texts = checked_list("texts", body["texts"])
        return tuple(checked_text(f"texts[{place}]", text) for place, text in enumerate(texts))

    def response(
        self, request: TextRequest, documents: tuple[str, ...], ranked: list[RankedDocument]
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """The body of a response, given the documents that were ranked, and their order."""
        results: list[dict[str, Any]] = [{"index": own["corpus_id"], "score": own["score"]} for own in ranked]
        if request.options.get("return_text"):
            for result in results:
                result["text"] = documents[result["index"]]
        return results


class CohereRerank(Rerank):
    """The ASGI application of `POST /v1/rerank`."""

    texts = ("query", "documents")

    @staticmethod
    def schemas(settings: ServerSettings) -> dict[str, Schema]:
        """JSON Schema of the options, by name."""
        return option_schemas(settings, "model", "top_n", "return_documents")

    def documents(self, body: Any) -> tuple[str, ...]:  # noqa: ANN401 - an object of JSON
        """The documents of a body: texts, or objects with a text."""
        documents = checked_list("documents", body["documents"])
        return tuple(_document(f"documents[{place}]", document) for place, document in enumerate(documents))

    def response(
        self, request: TextRequest, documents: tuple[str, ...], ranked: list[RankedDocument]
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """The body of a response."""
        results: list[dict[str, Any]] = [{"index": own["corpus_id"], "relevance_score": own["score"]} for own in ranked]
        if request.options.get("return_documents"):
            for result in results:
                result["document"] = {"text": documents[result["index"]]}
        return {"id": str(uuid4()), "results": results, "meta": {"api_version": {"version": "1"}}}


def rerank_paths(settings: ServerSettings) -> Paths:
    """Both routes in the form of OpenAPI."""
    text, index = text_schema(settings), {"type": "integer", "minimum": 0, "description": "Place in the request."}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": settings.max_items}
    tei = _operation(
        "rerank",
        "Rank texts, in the shape of text-embeddings-inference.",
        request_schema({"query": text, "texts": texts}, Rerank.schemas(settings)),
        {"query": "who was in the box", "texts": _EXAMPLES},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"index": index, "score": {"type": "number"}, "text": {"type": "string"}},
                "required": ["index", "score"],
            },
        },
    )
    with_text = {"type": "object", "properties": {"text": text}, "required": ["text"], "additionalProperties": False}
    documents = {**texts, "items": {"oneOf": [text, with_text]}}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    result = {
        "type": "object",
        "properties": {"index": index, "relevance_score": score, "document": with_text},
        "required": ["index", "relevance_score"],
    }
    cohere = _operation(
        "rerank_v1",
        "Rank documents, in the shape of Cohere.",
        request_schema({"query": text, "documents": documents}, CohereRerank.schemas(settings)),
        {"query": "who was in the box", "documents": _EXAMPLES, "top_n": 1},
        {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "results": {"type": "array", "items": result},
                "meta": {"type": "object"},
            },
            "required": ["id", "results", "meta"],
        },
    )
    return {"/rerank": {"post": tei}, "/v1/rerank": {"post": cohere}}


def _operation(operation: str, text: str, request: Schema, example: object, response: Schema) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": text,
        "requestBody": json_request(request, example),
        "responses": {
            "200": json_response("The documents, best first.", response),
            **error_responses(400, 408, 413, 415, 422, 429, 503, 504),
        },
    }


def _document(place: str, document: object) -> str:
    if isinstance(document, dict):
        if document.keys() != {"text"}:
            found = ", ".join(repr(key[:40]) for key in sorted(document)[:5]) or "(none)"
            raise InvalidInputError(f"{place} must be a text or an object with the key 'text' alone, not with {found}")
        return checked_text(f"{place}.text", document["text"])
    if not isinstance(document, str):
        raise InvalidInputError(f"{place} must be a text or an object with a text, not {shown(document)}")
    return document
