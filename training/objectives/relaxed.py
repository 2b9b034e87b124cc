"""Learnt selection by gradients: scores and thresholds are trained through soft masks or a straight-through choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.significance.thresholds import RULE_THRESHOLD
from dynamic_tinybert.modeling.reference import ReferenceOutput
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.modeling.tasks.question_answering import near_answer as worth_keeping
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import Batch, inputs_of
from dynamic_tinybert.training.front_meter import keeping_all

from .answer_losses import answer_loss, soft_answer_loss
from .base import Moment
from .relaxed_pass import relaxed_pass
from .selective import SCORERS_FIRST, SelectiveObjective, Target, context_of

_FIRST_THRESHOLD = -3.0  # of logits: where most tokens are once scorers tell some apart
_THRESHOLD_LEARNING_RATE = 1e-2
_PENALTY = 10.0  # of each share of the MACs above the target
_TEMPERATURES = (1.0, 0.1)  # of soft masks, first and last


class RelaxedSelection(SelectiveObjective):
    """The answers of `full`, those for what is left by selection, and a penalty on what that costs.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two.
        macs_fewer: How many times fewer MACs the selection shall need than `full`.
        scorer_weight: Of the scorers' loss.
        hard_from: Part of the training from which gates are 0 or 1. Before, they are soft and harden.
    """

    def __init__(
        self,
        model: BertForQuestionAnswering,
        scorers: Mapping[int, Scorer] | None,
        *,
        macs_fewer: float,
        hard_from: float,
        scorer_weight: float = 1.0,
    ) -> None:
        super().__init__(model, scorers, scorer_weight)
        self.thresholds = nn.ParameterDict(
            {str(layer): nn.Parameter(torch.tensor(_FIRST_THRESHOLD)) for layer in self.scorers()}
        )
        self._macs_fewer = macs_fewer
        self._hard_from = hard_from

    def learning_rates(self) -> Mapping[str, float]:
        """Thresholds have far to go."""
        return {**super().learning_rates(), "thresholds.": _THRESHOLD_LEARNING_RATE}

    def learnt_config(self) -> LengthConfig:
        """The thresholds as they are."""
        num_layers = self.model.config.num_hidden_layers
        learnt = {int(layer): 1 / (1 + math.exp(-float(t.detach()))) for layer, t in self.thresholds.items()}
        if self.reference.rule_layer is not None:
            learnt[self.reference.rule_layer] = RULE_THRESHOLD
        return LengthConfig((1.0,) * num_layers, tuple(learnt.get(layer) for layer in range(num_layers)))

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """Parts `answers`, `scorers` and, after the first tenth of the training, `dropped` and `cost`."""
        self.leave_scorers_alone(moment.share < SCORERS_FIRST)
        layers, context = list(self.scorers()), context_of(batch)
        full: ReferenceOutput = self.reference(
            **inputs_of(batch), length_config=keeping_all(self.model.config.num_hidden_layers, layers)
        )
        target = Target(worth_keeping(full.start_logits.detach(), full.end_logits.detach(), context).float())
        losses = {
            "answers": answer_loss(full, batch),
            "scorers": self.scorer_loss(full, dict.fromkeys(layers, target), context),
        }
        if moment.share < SCORERS_FIRST:
            return losses
        hard = moment.share >= self._hard_from
        output = relaxed_pass(
            self.model,
            self.deployed_scorers(),
            {int(layer): threshold for layer, threshold in self.thresholds.items()},
            batch,
            temperature=_TEMPERATURES[0] if hard else self._temperature(moment),
            hard=hard,
        )
        config = self.model.config
        cost = share_of_macs(output.shares, config.hidden_size, config.intermediate_size)
        losses["dropped"] = soft_answer_loss(output, full, batch)
        losses["cost"] = _PENALTY * (cost - 1 / self._macs_fewer).clamp(min=0)
        return losses

    def _temperature(self, moment: Moment) -> float:
        done = (moment.share - SCORERS_FIRST) / (self._hard_from - SCORERS_FIRST)
        first, last = _TEMPERATURES
        return float(first * (last / first) ** done)


def share_of_macs(shares: Sequence[Tensor], hidden: int, intermediate: int) -> Tensor:
    """MACs of the matrix products with weights, as a share of those of `full`, from what each layer passes on."""
    attention, rest = 4 * hidden * hidden, 2 * hidden * intermediate
    entering = [torch.ones_like(shares[0]), *shares[:-1]]
    costs = [attention * before + rest * after for before, after in zip(entering, shares, strict=True)]
    return torch.stack(costs).mean() / (attention + rest)
