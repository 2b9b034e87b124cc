"""The interface of all training objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import TokenBatch
from dynamic_tinybert.training.tasks import training_task_of

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class TrainingStep:
    """A step of a training.

    An objective seeds its random choices with `seed` and `index` alone, so that a resumed training makes the same ones.

    Attributes:
        index: Number of steps before this one.
        total: Number of steps of the whole training.
        seed: Seed of the training.
    """

    index: int
    total: int
    seed: int

    @property
    def progress(self) -> float:
        """Fraction of the training that is done, 0 to 1."""
        return self.index / self.total


class Objective(nn.Module):
    """A model with everything that is trained together with it.

    Args:
        model: The model to train, of a task that can be trained.

    Attributes:
        needs_teacher_logits: Whether batches must have `teacher_logits`, of the model as it was before the training.
        model: The model.
        task: The `TrainingTask` of the model, with its losses.

    Raises:
        InvalidInputError: The model's task cannot be trained.
    """

    needs_teacher_logits = False

    def __init__(self, model: BertPreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.task = training_task_of(model)

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """The weighted parts of the loss by name; the loss is their sum."""
        raise NotImplementedError

    def learning_rates(self) -> Mapping[str, float]:
        """Learning rates that differ from that of the training, by prefix of the parameters' names."""
        return {}

    def scorers(self) -> Mapping[int, Scorer]:
        """The scorers that are trained, by layer."""
        return {}

    def learnt_config(self) -> LengthConfig | None:
        """The length configuration that is trained, or None."""
        return None


@dataclass(frozen=True)
class Unregistered(Generic[M]):
    """Holds a module as an attribute of another one without registering its parameters there.

    PyTorch would register a module that is itself an attribute, and so train and save its weights.
    """

    module: M
