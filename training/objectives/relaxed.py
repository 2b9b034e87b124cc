"""Learnt selection by gradients: scorers and thresholds learn through soft masks or straight-through estimation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.reference import ReferenceOutput
from dynamic_tinybert.modeling.scorer import RULE_THRESHOLD, Scorer
from dynamic_tinybert.modeling.scorer_passes import keeping_all
from dynamic_tinybert.modeling.scorer_targets import ScorerTarget
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import TrainingStep
from .relaxed_pass import relaxed_pass
from .scorer_objective import WARM_UP, ScorerObjective

_INITIAL_THRESHOLD = -3.0  # on the scale of logits: most scores are near it once scorers tell tokens apart
_THRESHOLD_LEARNING_RATE = 1e-2
_PENALTY = 10.0  # times the excess over the target share of MACs
_TEMPERATURES = (1.0, 0.1)  # of soft masks, at the beginning and at the end


class RelaxedSelection(ScorerObjective):
    """Minimises the loss of `full`, the loss of a pass with learnt selection, and a penalty on the MACs of that pass.

    Args:
        model: The model.
        scorers: Scorers to start from, by layer; without any, new ones for all layers but the last two.
        macs_fewer: Target for the MACs of `full` divided by those with selection.
        hard_from: Fraction of the training after which gates are 0 or 1. Before it they are soft, at a falling
            temperature.
        scorer_weight: Weight of the scorers' loss.
    """

    def __init__(
        self,
        model: BertPreTrainedModel,
        scorers: Mapping[int, Scorer] | None,
        *,
        macs_fewer: float,
        hard_from: float,
        scorer_weight: float = 1.0,
    ) -> None:
        super().__init__(model, scorers, scorer_weight)
        self.thresholds = nn.ParameterDict(
            {str(layer): nn.Parameter(torch.tensor(_INITIAL_THRESHOLD)) for layer in self.scorers()}
        )
        self._macs_fewer = macs_fewer
        self._hard_from = hard_from

    def learning_rates(self) -> Mapping[str, float]:
        """The learning rates of scorers and of thresholds, which have far to go."""
        return {**super().learning_rates(), "thresholds.": _THRESHOLD_LEARNING_RATE}

    def learnt_config(self) -> LengthConfig:
        """The configuration with the learnt thresholds."""
        num_layers = self.model.config.num_hidden_layers
        learnt = {int(layer): 1 / (1 + math.exp(-float(t.detach()))) for layer, t in self.thresholds.items()}
        if self.reference.rule_layer is not None:
            learnt[self.reference.rule_layer] = RULE_THRESHOLD
        return LengthConfig((1.0,) * num_layers, tuple(learnt.get(layer) for layer in range(num_layers)))

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """Parts `answers` and `scorers`, and after the warm-up also `dropped` and `cost`."""
        warming_up = step.progress < WARM_UP
        self.detach_scorers(warming_up)
        layers, droppable = list(self.scorers()), self.droppable(batch)
        full: ReferenceOutput = self.reference(
            **inputs_of(batch), length_config=keeping_all(self.model.config.num_hidden_layers, layers)
        )
        own_outputs = {name: values.detach() for name, values in full.outputs.items()}
        target = ScorerTarget(self.reference.task.significance_targets(own_outputs, droppable).float())
        losses = {
            "answers": self.task.loss(full.outputs, batch),
            "scorers": self.scorer_loss(full, dict.fromkeys(layers, target), droppable),
        }
        if warming_up:
            return losses
        hard = step.progress >= self._hard_from
        output = relaxed_pass(
            self.model,
            self.deployed_scorers(),
            {int(layer): threshold for layer, threshold in self.thresholds.items()},
            batch,
            temperature=_TEMPERATURES[0] if hard else self._temperature(step),
            hard=hard,
        )
        config = self.model.config
        cost = share_of_macs(output.shares, config.hidden_size, config.intermediate_size)
        losses["dropped"] = self.task.soft_loss(output.outputs, self.task.probabilities(full.outputs, batch), batch)
        losses["cost"] = _PENALTY * (cost - 1 / self._macs_fewer).clamp(min=0)
        return losses

    def _temperature(self, step: TrainingStep) -> float:
        done = (step.progress - WARM_UP) / (self._hard_from - WARM_UP)
        first, last = _TEMPERATURES
        return float(first * (last / first) ** done)


def share_of_macs(shares: Sequence[Tensor], hidden: int, intermediate: int) -> Tensor:
    """MACs of the products with weights as a share of those of `full`; layers pass on `shares` of the tokens."""
    attention, rest = 4 * hidden * hidden, 2 * hidden * intermediate
    entering = [torch.ones_like(shares[0]), *shares[:-1]]
    costs = [attention * before + rest * after for before, after in zip(entering, shares, strict=True)]
    return torch.stack(costs).mean() / (attention + rest)
