"""Which asynchronous service runs requests to models of each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import TextClassifier
from dynamic_tinybert.runtime.tasks.sequence_classification.inference import check_outputs
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import Reranker

from .answerer import AsyncQuestionAnswerer
from .classifier import AsyncTextClassifier
from .reranker import AsyncReranker
from .service import AsyncService


def service_for(model: LengthAdaptiveModel, **options: Any) -> AsyncService:  # noqa: ANN401 - those of `AsyncService`
    """A service that carries out all jobs that a model's task has.

    Args:
        model: The model.
        options: `max_queued` and `workers`, as for `AsyncService`.

    Raises:
        BundleFormatError: The labels in a classifier's config.json cannot be read, or do not fit its graph.
        InvalidInputError: There is no service for the task.
    """
    task = model.bundle.task
    if task not in SERVICES:
        raise InvalidInputError(f"a model for {task!r} cannot be served, only models for {' and '.join(SERVICES)}")
    return SERVICES[task](model, **options)


def _of_answers(model: LengthAdaptiveModel, **options: Any) -> AsyncService:  # noqa: ANN401
    return AsyncQuestionAnswerer(QuestionAnswerer(model), **options)


def _of_labels(model: LengthAdaptiveModel, **options: Any) -> AsyncService:  # noqa: ANN401
    labels = Labels.of(model.bundle)
    check_outputs(model, model([[0]]), labels)  # now, not at each request
    if len(labels) == 1:
        return AsyncReranker(Reranker(model, function_to_apply="none"), **options)  # jobs say what is applied
    return AsyncTextClassifier(TextClassifier(model), **options)


SERVICES: Mapping[str, Callable[..., AsyncService]] = {
    "question_answering": _of_answers,
    "sequence_classification": _of_labels,
}
"""For each task a function that makes the service of a model."""
