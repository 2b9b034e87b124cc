"""What an export to INT8 needs of a task's data, by the name of the task. Imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks import entry_of

if TYPE_CHECKING:
    from .samples import ReadSamples

SAMPLE_READERS: dict[str, str] = {
    "question_answering": "dynamic_tinybert.export.tasks.question_answering.samples:read_samples",
    "sequence_classification": "dynamic_tinybert.export.tasks.sequence_classification.samples:read_samples",
}
"""For each task's name, as in the manifest, the module and the attribute that hold its `ReadSamples`."""


def sample_reader(task: str) -> ReadSamples:
    """The reader of a task's samples.

    Raises:
        InvalidInputError: The task has none, so that it can be exported in FP32 only.
    """
    read: ReadSamples = entry_of(
        SAMPLE_READERS,
        task,
        lambda known: InvalidInputError(
            f"INT8 cannot be calibrated for the task {task!r}, only for {known}; export to fp32"
        ),
    )
    return read
