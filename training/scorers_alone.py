"""Scorers trained on a model that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.scorer import Scorer

from .batches import Batch
from .front_sampling import FrontSampling
from .objective import Moment


class ScorersAlone(FrontSampling):
    """Scorers learn what `front` teaches them, of all tokens and of those that a configuration leaves.

    `full` stays what it was, and no gradient passes through the layers.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two.
    """

    keeps_all = 0.5  # early scorers learn in these steps alone, and no model has to learn in the others

    def __init__(self, model: BertForQuestionAnswering, scorers: Mapping[int, Scorer] | None = None) -> None:
        super().__init__(model.requires_grad_(False), scorers)

    def learning_rates(self) -> Mapping[str, float]:
        """None of their own: only scorers are trained."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """One part, `scorers`."""
        return {"scorers": super().forward(batch, moment)["scorers"]}
