"""Read from config.json which task a checkpoint is for, and whether the exported graph can compute its model."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from dynamic_tinybert.runtime.bundles.files import CONFIG
from dynamic_tinybert.runtime.common.errors import CheckpointError

from .foreign import ADAPTER, refuse_placeholder, what_it_is
from .tasks import model_tasks
from .tasks.task import ModelTask

# For keys that config.json leaves out, transformers has the same defaults.
_REQUIRED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


@dataclass(frozen=True)
class CheckpointKind:
    """A supported kind of checkpoint.

    Attributes:
        architectures: The model classes that config.json names, for messages.
        task: The task of one of these classes. If none of them belongs to a task, the first of all tasks; its head must
            then be among the weights.
        names_task: Whether config.json names the model class of a task, or no class at all.
    """

    architectures: str
    task: ModelTask
    names_task: bool

    @property
    def head(self) -> str:
        """Name of the weight by which the head is recognised."""
        return f"{self.task.head_linears[-1]}.weight"


def check_config(source: str, folder: Path, names: Callable[[], Collection[str]]) -> CheckpointKind:
    """Read config.json, and check that the exported graph can compute the model that it describes.

    Args:
        source: Name of the checkpoint in error messages.
        folder: Holds config.json.
        names: Returns the names of the checkpoint's files, for error messages.

    Raises:
        CheckpointError: There is no config.json, it cannot be read, or the model is not supported.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{source} has no readable {CONFIG}: {what_it_is(names())}; {_supported()}")
    refuse_placeholder(source, path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        named = config.get("architectures") or []
        named = [named] if isinstance(named, str) else list(named)
        task = next((task for task in model_tasks() if task.architecture.__name__ in named), None)
        assumed = task or next(model_tasks())
        kind = ", ".join(named) or assumed.architecture.__name__
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{source} has no readable {CONFIG}: {error}; {_supported()}") from error
    for key, required in _REQUIRED.items():
        if (value := config.get(key, required)) != required:
            raise CheckpointError(
                f"{source} ({kind}) has {key} {value!r}, and only {required!r} is supported; {_supported()}"
            )
    if (reason := assumed.unsupported(config)) is not None:
        raise CheckpointError(f"{source} {reason}; {_supported()}")
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{source} is already quantised (quantization_config in {CONFIG}); use the float32, float16 or bfloat16 "
            "checkpoint that it was made from"
        )
    if (folder / ADAPTER).is_file():
        raise CheckpointError(f"{source} cannot be exported: {what_it_is([ADAPTER])}; or remove its files ({ADAPTER})")
    return CheckpointKind(kind, assumed, task is not None or not named)


def no_head(source: str, kind: CheckpointKind) -> CheckpointError:
    """The error for a checkpoint that lacks the head of its task, or whose head has the wrong size."""
    return CheckpointError(f"{source} is a {kind.architectures} and has no {kind.task.no_head}; {_supported()}")


def _supported() -> str:
    architectures = " and ".join(task.architecture.__name__ for task in model_tasks())
    return (
        f"supported are {architectures} checkpoints of any depth and width (BERT, TinyBERT, MiniLM, Dynamic-TinyBERT)"
    )
