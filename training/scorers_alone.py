"""Scorers trained on a model that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.scorer import Scorer
from dynamic_tinybert.export.reference import ReferenceOutput

from .batches import Batch, inputs_of
from .objective import Moment
from .operating_points import draw_configs
from .scorers import SCORERS_FIRST, SelectiveObjective, context_of


class ScorersAlone(SelectiveObjective):
    """What the model believes in, for its scorers, of everything and of what a sampled configuration leaves.

    `full` stays what it was, and no gradient passes through the layers.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two.
    """

    def __init__(self, model: BertForQuestionAnswering, scorers: Mapping[int, Scorer] | None = None) -> None:
        super().__init__(model.requires_grad_(False), scorers)

    def learning_rates(self) -> Mapping[str, float]:
        """None of their own: only scorers are trained."""
        return {}

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """One part, `scorers`."""
        full, target, losses = self.learn_from_full(batch, moment)
        if moment.share < SCORERS_FIRST:
            return {"scorers": losses["scorers"]}
        (config,) = draw_configs(self.reference, full, batch, moment, 1)
        dropped: ReferenceOutput = self.reference(**inputs_of(batch), length_config=config)
        return {"scorers": (losses["scorers"] + self.scorer_loss(dropped, target, context_of(batch))) / 2}
