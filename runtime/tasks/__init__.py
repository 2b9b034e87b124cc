"""Tasks: what a model's head computes, and how its outputs become answers. Each is a folder, found by its name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.errors import BundleFormatError

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
    if name not in TASKS:
        raise BundleFormatError(
            f"the task {name!r} is not one that this release runs ({', '.join(sorted(TASKS))}); if it is newer than "
            "this release, upgrade with: pip install --upgrade dynamic-tinybert"
        )
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)
    return task
