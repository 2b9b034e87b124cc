"""Tasks: what a model's head computes, and how its outputs become answers. Each is a folder, found by its name."""

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
}
"""Where each task is, as `module:attribute`, by its name in manifests; imported when a model of it is loaded."""


def task_named(name: str) -> Task:
    """The task of a name.

    Raises:
        BundleFormatError: There is none of this name.
    """
    task: Task = entry_of(
        TASKS,
        name,
        lambda known: BundleFormatError(
            f"the task {name!r} is not one that this release runs ({known}); if it is newer than this release, upgrade "
            "with: pip install --upgrade dynamic-tinybert"
        ),
    )
    return task


def entry_of(table: Mapping[str, str], task: str, missing: Callable[[str], DynamicTinyBertError]) -> Any:  # noqa: ANN401 - the table decides
    """Import what a table of tasks names for one of them. Each layer of the package has such a table in its `tasks`.

    Args:
        table: `module:attribute` by the name of the task; the attribute may be dotted.
        task: The name.
        missing: Makes the error for a task that is not in the table, from the names of those that are.
    """
    if task not in table:
        raise missing(", ".join(sorted(table)))
    module, _, attribute = table[task].partition(":")
    return attrgetter(attribute)(import_module(module))
