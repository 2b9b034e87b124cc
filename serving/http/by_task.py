"""Which endpoints there are for the model of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from dynamic_tinybert.runtime.common.errors import StartingError
from dynamic_tinybert.serving.jobs import Backend, ModelFacts

Kind = Literal["answers", "labels", "ranks"]
"""What a model gives: answers to questions, labels of texts, or (with one output) labels and orders of documents."""

USES: Mapping[Kind, str] = {
    "answers": "answers questions: POST /predict, or /explain",
    "labels": "classifies texts: POST /predict",
    "ranks": "ranks documents: POST /rerank, /v1/rerank or, for texts and pairs of any kind, /predict",
}
"""What models do and what to ask, after "which"."""


def loaded_facts(backend: Backend) -> ModelFacts:
    """What a backend says of its model.

    Raises:
        StartingError: The model is not loaded yet.
    """
    if backend.facts is None:
        raise StartingError("the model is not loaded yet")
    return backend.facts


def kind_of(facts: ModelFacts) -> Kind:
    """What a model gives."""
    if facts.task != "sequence_classification":
        return "answers"
    return "ranks" if len(facts.labels) == 1 else "labels"


class ByTask:
    """The ASGI application that passes requests on to that for the server's model."""

    def __init__(self, backend: Backend, apps: Mapping[Kind, ASGIApp]) -> None:
        """Pass requests on.

        Args:
            backend: Knows the model.
            apps: An application for each kind of model for which the path is there; others get 404.
        """
        self._backend = backend
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        kind = kind_of(loaded_facts(self._backend))
        if kind not in self._apps:
            raise HTTPException(404, f"{scope['path']} is not for the model of this server, which {USES[kind]}")
        await self._apps[kind](scope, receive, send)
