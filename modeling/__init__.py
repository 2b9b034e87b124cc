"""PyTorch models that export, calibration and training share: checkpoints, scorers, the reference model."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, load_checkpoint
    from .reference import ReferenceModel
    from .scorer import Scorer, load_scorers, save_scorers

__all__ = ["Checkpoint", "ReferenceModel", "Scorer", "load_checkpoint", "load_scorers", "save_scorers"]

__getattr__ = lazy_attributes(
    __name__,
    {
        **dict.fromkeys(("Checkpoint", "load_checkpoint"), "checkpoint"),
        "ReferenceModel": "reference",
        **dict.fromkeys(("Scorer", "load_scorers", "save_scorers"), "scorer"),
    },
    "export",
)
