"""Tasks in PyTorch, by name. Each is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks import entry_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .task import ModelTask

MODEL_TASKS: dict[str, str] = {
    "question_answering": "dynamic_tinybert.modeling.tasks.question_answering:TASK",
    "sequence_classification": "dynamic_tinybert.modeling.tasks.sequence_classification:TASK",
}
"""For each task's name, as in the manifest, the module and the attribute that hold its `ModelTask`."""


def model_task(name: str) -> ModelTask:
    """The task with this name.

    Raises:
        InvalidInputError: There is no such task.
    """
    task: ModelTask = entry_of(
        MODEL_TASKS, name, lambda known: InvalidInputError(f"there is no task {name!r}; the tasks are: {known}")
    )
    return task


def model_tasks() -> Iterator[ModelTask]:
    """All tasks, in the order of `MODEL_TASKS`."""
    return map(model_task, MODEL_TASKS)


def task_of(model: PreTrainedModel) -> ModelTask:
    """The task whose head a model has.

    Raises:
        InvalidInputError: The model has the head of no task.
    """
    for task in model_tasks():
        if isinstance(model, task.architecture):
            return task
    known = ", ".join(task.architecture.__name__ for task in model_tasks())
    raise InvalidInputError(f"a {type(model).__name__} has the head of no task; supported are: {known}")
