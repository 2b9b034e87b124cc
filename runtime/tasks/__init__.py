"""Tasks: what a model's head computes, and what its outputs mean. Each task is a subpackage, found by its name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.errors import BundleFormatError

if TYPE_CHECKING:
    from .task import Task

TASKS: dict[str, str] = {
    "question_answering": "dynamic_tinybert.runtime.tasks.question_answering.task:QUESTION_ANSWERING",
}
"""For each task, by its name in manifests, `module:attribute` of its `Task`; imported when a model of it is loaded."""


def task_named(name: str) -> Task:
    """The task with this name in manifests.

    Raises:
        BundleFormatError: This release has no task of this name.
    """
    if name not in TASKS:
        raise BundleFormatError(
            f"unknown task {name!r}; this release has: {', '.join(sorted(TASKS))}. If the task is newer, upgrade with: "
            "pip install --upgrade dynamic-tinybert"
        )
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)
    return task
