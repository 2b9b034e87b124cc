"""Learnt selection by sampling: each step drops tokens by a random configuration like those that are deployed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import Tensor
from transformers import BertPreTrainedModel

from dynamic_tinybert.calibration.significance.thresholds import RULE_THRESHOLD
from dynamic_tinybert.modeling.importance import token_importance, zero_attention_biases
from dynamic_tinybert.modeling.reference import ReferenceOutput
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import TokenBatch, inputs_of
from dynamic_tinybert.training.length_configs import draw_shares, keeping_all

from .base import TrainingStep
from .scorer_objective import WARM_UP, ScorerObjective, ScorerTarget


class FrontSampling(ScorerObjective):
    """Trains every pass, whatever it drops, to the same soft labels: the mean of labels and initial probabilities.

    A step is one pass. A quarter of the steps keep all tokens; each of the others drops them by a configuration that is
    drawn from the range that calibrations choose from. Dropped tokens are not computed, so these steps are cheaper.

    The target of a scorer is the significance that the task computes from the soft labels, for question answering the
    probability that the answer starts or ends near a token. In the first half of the layers it is the mean of that and
    of the token's importance to later layers (`token_importance`), because a token far from the answer may matter
    there. Importance is known only in passes that keep everything, so these scorers learn in such steps alone.

    Args:
        model: The model.
        scorers: Scorers to start from, by layer; without any, new ones for all layers but the last two. New
            scorers learn without the model during `WARM_UP`.
        scorer_weight: Weight of the scorers' loss.

    Attributes:
        keeps_all: Probability that a step keeps all tokens.
    """

    needs_teacher_logits = True
    keeps_all = 0.25

    def __init__(
        self,
        model: BertPreTrainedModel,
        scorers: Mapping[int, Scorer] | None = None,
        *,
        scorer_weight: float = 1.0,
    ) -> None:
        super().__init__(model, scorers, scorer_weight)
        self._warm_up = 0.0 if scorers else WARM_UP

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """Part `full` or `dropped`, depending on the step, and `scorers` if a scorer learns in it."""
        warming_up = step.progress < self._warm_up
        self.detach_scorers(warming_up)
        random = np.random.default_rng([step.seed, step.index])
        shares = {} if warming_up else self.drawn_shares(random)
        computing = list(shares or self.scorers())
        biases = {} if shares else zero_attention_biases(batch["input_ids"], self.model.config.num_hidden_layers)
        output: ReferenceOutput = self.reference(
            **inputs_of(batch),
            length_config=self._config(computing, drops=bool(shares)),
            shares=shares,
            attention_bias=biases,
        )
        soft_labels = self.task.soft_labels(batch)
        losses = {"dropped" if shares else "full": self.task.soft_loss(output.outputs, soft_labels, batch)}
        if targets := self._scorer_targets(batch, computing, output, soft_labels, biases):
            losses["scorers"] = self.scorer_loss(output, targets, self.droppable(batch))
        return losses

    def drawn_shares(self, random: np.random.Generator) -> dict[int, float]:
        """Draw the share of the tokens that each selecting layer passes on in a step; empty if it keeps everything."""
        return {} if random.random() < self.keeps_all else draw_shares(list(self.scorers()), random)

    def early_layers(self) -> list[int]:
        """Layers whose scorers also learn importance, and therefore learn only in steps that keep everything."""
        num_layers = self.model.config.num_hidden_layers
        if num_layers == 1:  # there is no later layer
            return []
        return [layer for layer in self.scorers() if layer < num_layers / 2]

    def _config(self, computing: Collection[int], *, drops: bool) -> LengthConfig:
        """The configuration in which the layers `computing` run their scorers; shares replace their thresholds.

        The context rule selects by its threshold if the step `drops` tokens.
        """
        config = keeping_all(self.model.config.num_hidden_layers, computing)
        rule = self.reference.rule_layer
        if not drops or rule is None:
            return config
        thresholds = [RULE_THRESHOLD if i == rule else threshold for i, threshold in enumerate(config.thresholds)]
        return LengthConfig(config.keep_ratios, tuple(thresholds))

    def _scorer_targets(
        self,
        batch: TokenBatch,
        computing: Collection[int],
        output: ReferenceOutput,
        soft_labels: Tensor,
        biases: Mapping[int, Tensor],
    ) -> dict[int, ScorerTarget]:
        """Targets by layer of the scorers that learn in a step; `biases` is empty if the pass dropped tokens."""
        significance = self.reference.task.significance_targets(
            self.task.outputs_of(soft_labels), self.droppable(batch)
        ).float()
        early = self.early_layers()
        targets = {layer: ScorerTarget(significance) for layer in computing if layer not in early}
        if biases and early:
            importance = token_importance(self.task.importance_scalar(output.outputs, soft_labels, batch), biases)
            for layer in early:
                targets[layer] = ScorerTarget((significance + importance[layer]) / 2, weight_of_kept=1.0)
        return targets
