"""The checkpoints of a training: files that transformers can load, and others that only a resumed training needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from dynamic_tinybert.modeling.scorer import save_scorers
from dynamic_tinybert.runtime.bundles.files import SCORERS
from dynamic_tinybert.runtime.common.publish import writing

from .objectives.base import Objective

_WEIGHTS = "model.safetensors"
_OTHERS = "objective.safetensors"  # what is trained besides the model: scorers, thresholds, projections
_MODEL_PREFIX = "model."
_TRAINER_STATE = "trainer_state.json"


def save_model(objective: Objective, folder: Path) -> None:
    """Write config.json, the weights and, if scorers are trained, the scorers.

    Raises:
        StorageError: A file could not be written.
    """
    with writing(folder):
        objective.model.save_pretrained(folder, save_original_format=False)  # without TensorFlow's names
        if scorers := objective.scorers():
            save_scorers(scorers, folder / SCORERS)


def save_state(objective: Objective, folder: Path) -> None:
    """Write the state that `load_state` reads.

    Raises:
        StorageError: A file could not be written.
    """
    save_model(objective, folder)
    state = objective.state_dict()
    others = {name: tensor for name, tensor in state.items() if not name.startswith(_MODEL_PREFIX)}
    with writing(folder):
        save_file(others, folder / _OTHERS)


def load_state(objective: Objective, folder: Path) -> None:
    """Load the files of `save_state` into an objective of the same kind."""
    of_model = {f"{_MODEL_PREFIX}{name}": tensor for name, tensor in load_file(folder / _WEIGHTS).items()}
    objective.load_state_dict(of_model | load_file(folder / _OTHERS))


def checkpoint_of_step(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint after a step, counted from 1."""
    return checkpoints / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The latest complete checkpoint, or None; incomplete ones, which a killed process left, are removed."""
    complete: dict[int, Path] = {}
    for folder in checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            complete[int(json.loads((folder / _TRAINER_STATE).read_text())["global_step"])] = folder
        except (OSError, ValueError, KeyError):  # this file is written last
            shutil.rmtree(folder, ignore_errors=True)
    return complete[max(complete)] if complete else None
