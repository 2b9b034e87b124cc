"""Training of question-answering checkpoints that live with dropped tokens."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.lazy import lazy_attributes

if TYPE_CHECKING:
    from .options import TrainingOptions
    from .trainer import Training, train

__all__ = ["Training", "TrainingOptions", "train"]

__getattr__ = lazy_attributes(
    __name__, {"Training": "trainer", "TrainingOptions": "options", "train": "trainer"}, "training"
)
