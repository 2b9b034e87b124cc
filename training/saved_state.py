"""The files of a model in training: those that anybody can load, and what only the training needs."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from dynamic_tinybert.modeling.scorer import save_scorers
from dynamic_tinybert.runtime.bundles.files import SCORERS
from dynamic_tinybert.runtime.common.publish import writing

from .objectives.base import Objective

_WEIGHTS = "model.safetensors"
_BESIDE = "objective.safetensors"  # scorers, thresholds, projections
_OF_MODEL = "model."


def save_model(objective: Objective, folder: Path) -> None:
    """Write config.json, the weights and, where they are trained, the scorers.

    Raises:
        StorageError: A file could not be written.
    """
    with writing(folder):
        objective.model.save_pretrained(folder, save_original_format=False)  # no names of TensorFlow's
        if scorers := objective.scorers():
            save_scorers(scorers, folder / SCORERS)


def save_state(objective: Objective, folder: Path) -> None:
    """Write what `load_state` needs.

    Raises:
        StorageError: A file could not be written.
    """
    save_model(objective, folder)
    beside = {name: tensor for name, tensor in objective.state_dict().items() if not name.startswith(_OF_MODEL)}
    with writing(folder):
        save_file(beside, folder / _BESIDE)


def load_state(objective: Objective, folder: Path) -> None:
    """Read what `save_state` wrote into an objective of the same kind."""
    of_model = {f"{_OF_MODEL}{name}": tensor for name, tensor in load_file(folder / _WEIGHTS).items()}
    objective.load_state_dict(of_model | load_file(folder / _BESIDE))
