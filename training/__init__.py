"""Training of checkpoints that keep their quality when tokens are dropped."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .options import TrainingOptions
    from .result import Training
    from .trainer import train

__all__ = ["Training", "TrainingOptions", "train"]

__getattr__ = lazy_attributes(
    __name__, {"Training": "result", "TrainingOptions": "options", "train": "trainer"}, "training"
)
