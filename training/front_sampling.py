"""Learnt selection by sampling: at each step some schedules of the front, dropped as they will be when deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.schedules import Schedule
from dynamic_tinybert.calibration.scorer import Scorer
from dynamic_tinybert.calibration.thresholds import SignificanceSample
from dynamic_tinybert.export.reference import ReferenceOutput

from .answer_losses import soft_answer_loss
from .batches import Batch, inputs_of
from .objective import Moment
from .scorers import SCORERS_FIRST, SelectiveObjective, context_of

_CONFIGURATIONS = 2  # of a step
_SELECTS = 0.6  # chance of a layer with a scorer: each selection takes time, so that few layers select when deployed
_LAST_SHARES = (0.13, 0.5)  # a tenth is the question; configurations that calibrations choose keep a third or less


class FrontSampling(SelectiveObjective):
    """The answers of `full`, what it believes in for the scorers, and its answers for what is left by dropping.

    Each step draws schedules. Their thresholds are those that keep the wanted shares of the batch, which is how
    calibration finds them, so that some windows keep more than others; tokens are dropped by gathering, which makes
    the step cheaper, too.

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
        num_layers, layers = self.model.config.num_hidden_layers, list(self.scorers())
        real = batch["attention_mask"].bool()
        values = {layer: full.significance[layer].detach()[real].float().cpu().numpy() for layer in layers}
        sample = SignificanceSample(values, num_layers, rule_layer=self.reference.rule_layer)
        random = np.random.default_rng([moment.seed, moment.step])
        for _ in range(_CONFIGURATIONS):
            config = sample.length_config(draw_schedule(num_layers, layers, random))
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


def draw_schedule(num_layers: int, layers: Sequence[int], random: np.random.Generator) -> Schedule:
    """A schedule in which some of the layers select, down to a share from 0.13 to 0.5 whose logarithm is uniform."""
    selecting = [layer for layer in sorted(layers) if random.random() < _SELECTS] or [max(layers)]
    lowest, highest = np.log(_LAST_SHARES)
    falls = random.uniform(lowest, highest) * random.dirichlet(np.full(len(selecting), 2.0)).cumsum()
    return Schedule.of_layers(num_layers, dict(zip(selecting, np.exp(falls).tolist(), strict=True)))
