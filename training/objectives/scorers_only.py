"""Training of scorers on a frozen model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.training.batches import TokenBatch

from .base import TrainingStep
from .front import FrontSampling


class ScorersOnly(FrontSampling):
    """The scorers' part of `FrontSampling`, on a model that is frozen and computes without dropout.

    Args:
        model: The model.
        scorers: Scorers to start from, by layer; without any, new ones for all layers but the last two.
    """

    keeps_all = 0.5  # early scorers learn only in these steps; the model learns in none

    def __init__(self, model: BertPreTrainedModel, scorers: Mapping[int, Scorer] | None = None) -> None:
        super().__init__(model.requires_grad_(False), scorers)

    def train(self, mode: bool = True) -> ScorersOnly:
        """Set the mode of the scorers; the model stays in evaluation mode."""
        super().train(mode)
        nn.Module.eval(self.model)
        return self

    def detach_scorers(self, detached: bool) -> None:
        """Always detach the scorers: a frozen model needs no gradient."""
        super().detach_scorers(True)

    def drawn_shares(self, random: np.random.Generator) -> dict[int, float]:
        """As in `FrontSampling`, but a step in which no scorer would learn keeps everything."""
        shares = super().drawn_shares(random)
        return shares if shares.keys() - self.early_layers() else {}

    def learning_rates(self) -> Mapping[str, float]:
        """None: the scorers use the learning rate of the training."""
        return {}

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """One part, `scorers`."""
        return {"scorers": super().forward(batch, step)["scorers"]}
