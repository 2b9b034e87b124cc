"""What a training minimises: the common form of all objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import Batch, inputs_of

from .answer_losses import answer_loss


@dataclass(frozen=True)
class Moment:
    """Where a training is.

    Attributes:
        step: Steps before this one; with `seed` all that an objective may draw its random choices from, so that a
            training that goes on draws the same.
        steps: Of the whole training.
        seed: Of the training.
    """

    step: int
    steps: int
    seed: int

    @property
    def share(self) -> float:
        """Part of the training that is done."""
        return self.step / self.steps


class Objective(nn.Module):
    """A model with all that is trained beside it.

    Args:
        model: The model that is trained.

    Attributes:
        needs_taught: Whether its batches shall hold what the model believed before the training.
    """

    needs_taught = False

    def __init__(self, model: BertForQuestionAnswering) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """The parts of the loss by name, with their weights; the loss is their sum."""
        raise NotImplementedError

    def learning_rates(self) -> Mapping[str, float]:
        """Learning rates of parameters that have one of their own, by the beginning of their names."""
        return {}

    def scorers(self) -> Mapping[int, Scorer]:
        """Scorers that are trained, by layer."""
        return {}

    def learnt_config(self) -> LengthConfig | None:
        """The length configuration that is trained, if one is."""
        return None


class FineTuning(Objective):
    """Cross-entropy of the answers in the data."""

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """One part, `answers`."""
        return {"answers": answer_loss(self.model(**inputs_of(batch)), batch)}
