"""Which class of this package runs models of a task."""

from __future__ import annotations

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import InvalidInputError

USER_CLASSES = {
    "question_answering": "QuestionAnswerer",
    "sequence_classification": "TextClassifier or, if it has one output, Reranker",
}
"""For each task with such classes, their names."""


def require_task(bundle: Bundle, task: str, what: str) -> None:
    """Check that a bundle is of a task.

    Args:
        bundle: The bundle.
        task: Name of the task.
        what: What models of the task do, for the message: "this model is for …, and does not …".

    Raises:
        InvalidInputError: It is of another task; the message says which class to use.
    """
    if bundle.task != task:
        use = USER_CLASSES.get(bundle.task, "the model itself (LengthAdaptiveModel)")
        raise InvalidInputError(
            f"this model is for {bundle.task!r}, and does not {what}; use {use} for it, or load a bundle for {task!r}"
        )
