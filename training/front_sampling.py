"""Learnt selection by sampling: at each step some schedules of the front, dropped as they will be when deployed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.scorer import Scorer
from dynamic_tinybert.export.reference import ReferenceOutput

from .answer_losses import soft_answer_loss
from .batches import Batch, inputs_of
from .objective import Moment
from .operating_points import draw_configs
from .scorers import SCORERS_FIRST, SelectiveObjective, context_of

_CONFIGURATIONS = 2  # of a step


class FrontSampling(SelectiveObjective):
    """The answers of `full`, what it believes in for the scorers, and its answers for what is left by dropping.

    Each step draws configurations; tokens are dropped by gathering, which makes the step cheaper, too.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two.
        scorer_weight: Of the scorers' loss.
        states: Let kept tokens also have the states that they have when nothing is dropped.
    """

    def __init__(
        self,
        model: BertForQuestionAnswering,
        scorers: Mapping[int, Scorer] | None = None,
        *,
        scorer_weight: float = 1.0,
        states: bool = False,
    ) -> None:
        super().__init__(model, scorers, scorer_weight)
        self._states = states

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """Parts `answers`, `scorers` and, after the first tenth of the training, `dropped` and maybe `states`."""
        full, target, losses = self.learn_from_full(batch, moment)
        if moment.share < SCORERS_FIRST:
            return losses
        for config in draw_configs(self.reference, full, batch, moment, _CONFIGURATIONS):
            dropped: ReferenceOutput = self.reference(**inputs_of(batch), length_config=config)
            loss = soft_answer_loss(dropped, full, batch) / _CONFIGURATIONS
            losses["dropped"] = losses.get("dropped", 0) + loss
            if self._states:
                losses["states"] = losses.get("states", 0) + state_loss(dropped, full) / _CONFIGURATIONS
            scored = self.scorer_loss(dropped, target, context_of(batch))
            losses["scorers"] = losses["scorers"] + scored / _CONFIGURATIONS
        return losses


def state_loss(dropped: ReferenceOutput, full: ReferenceOutput) -> Tensor:
    """Mean squared difference between the states of kept tokens and those of the same tokens in a teacher.

    Args:
        dropped: Of a configuration that drops.
        full: Of one that keeps all, so that its rows are positions; it learns nothing from this.
    """
    losses = []
    for layer, (positions, states) in dropped.states.items():
        taught = full.states[layer][1].detach()
        kept = positions < taught.shape[1]
        same = taught.take_along_dim(positions.clamp(max=taught.shape[1] - 1)[..., None], 1)
        losses.append(((states - same) ** 2)[kept].mean())
    return torch.stack(losses).mean()
