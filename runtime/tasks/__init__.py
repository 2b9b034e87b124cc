"""Tasks: what a model's head computes, and what its outputs mean. Each task is a subpackage, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dynamic_tinybert.runtime.common.errors import BundleFormatError, DynamicTinyBertError

if TYPE_CHECKING:
    from .task import Task

TASKS: dict[str, str] = {
    "question_answering": "dynamic_tinybert.runtime.tasks.question_answering.task:QUESTION_ANSWERING",
    "sequence_classification": ("dynamic_tinybert.runtime.tasks.sequence_classification.task:SEQUENCE_CLASSIFICATION"),
}
"""For each task, by its name in manifests, `module:attribute` of its `Task`; imported when a model of it is loaded."""


def task_named(name: str) -> Task:
    """The task with this name in manifests.

    Raises:
        BundleFormatError: This release has no task of this name.
    """
    task: Task = entry_of(
        TASKS,
        name,
        lambda known: BundleFormatError(
            f"unknown task {name!r}; this release has: {known}. If the task is newer, upgrade with: "
            "pip install --upgrade dynamic-tinybert"
        ),
    )
    return task


def entry_of(table: Mapping[str, str], task: str, missing: Callable[[str], DynamicTinyBertError]) -> Any:  # noqa: ANN401 - the table decides
    """Import the entry of a task in a table of tasks. Each layer of the package has such a table in its `tasks`.

    Args:
        table: `module:attribute` by the name of the task; the attribute may be dotted.
        task: Name of the task.
        missing: Makes the error to raise if the task is not in the table, given the names in the table as one text.
    """
    if task not in table:
        raise missing(", ".join(sorted(table)))
    module, _, attribute = table[task].partition(":")
    return attrgetter(attribute)(import_module(module))
