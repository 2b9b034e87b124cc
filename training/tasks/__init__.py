"""The tasks that can be trained, by name. Each is imported when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks import entry_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .task import TrainingTask

TRAINING_TASKS: dict[str, str] = {
    "question_answering": "dynamic_tinybert.training.tasks.question_answering:TASK",
    "sequence_classification": "dynamic_tinybert.training.tasks.sequence_classification:TASK",
}
"""For each task's name, as in the manifest, the module and the attribute that hold its `TrainingTask`."""


def training_task_of(model: PreTrainedModel) -> TrainingTask:
    """The `TrainingTask` for the head of a model.

    Raises:
        InvalidInputError: The model has the head of no task, or of one that cannot be trained.
    """
    name = task_of(model).name
    task: TrainingTask = entry_of(
        TRAINING_TASKS,
        name,
        lambda known: InvalidInputError(f"models for {name} cannot be trained, only those for: {known}"),
    )
    return task
