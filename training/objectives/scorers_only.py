"""Scorers trained on a model that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.training.batches import Batch

from .base import Moment
from .front import FrontSampling


class ScorersAlone(FrontSampling):
    """Scorers learn what `front` teaches them, of all tokens and of those that a configuration leaves.

    The model stays what it was, and computes without dropout; scorers learn nothing that goes through it.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two.
    """

    keeps_all = 0.5  # early scorers learn in these steps alone, and no model has to learn in the others

    def __init__(self, model: BertForQuestionAnswering, scorers: Mapping[int, Scorer] | None = None) -> None:
        super().__init__(model.requires_grad_(False), scorers)

    def train(self, mode: bool = True) -> ScorersAlone:
        """Train the scorers; the model always computes what it will when deployed."""
        super().train(mode)
        nn.Module.eval(self.model)
        return self

    def leave_scorers_alone(self, alone: bool) -> None:
        """The model learns nothing, so no gradient need reach it."""
        super().leave_scorers_alone(True)

    def drawn_shares(self, random: np.random.Generator) -> dict[int, float]:
        """As in `front`, but a step that would teach no scorer keeps everything."""
        shares = super().drawn_shares(random)
        return shares if shares.keys() - self.early_layers() else {}

    def learning_rates(self) -> Mapping[str, float]:
        """None of their own: only scorers are trained."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """One part, `scorers`."""
        return {"scorers": super().forward(batch, moment)["scorers"]}
