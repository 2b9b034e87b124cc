"""Learnt selection by sampling: each step drops tokens by a random configuration like those that are deployed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import Tensor
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.importance import token_importance, zero_attention_biases
from dynamic_tinybert.modeling.reference import ReferenceOutput
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.modeling.scorer_passes import draw_shares, dropping, keeping_all
from dynamic_tinybert.modeling.scorer_targets import ScorerTarget, early_layers, scorer_targets
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import TrainingStep
from .scorer_objective import WARM_UP, ScorerObjective


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
        num_layers = self.model.config.num_hidden_layers
        biases = {} if shares else zero_attention_biases(batch["input_ids"], num_layers)
        rule = self.reference.rule_layer
        output: ReferenceOutput = self.reference(
            **inputs_of(batch),
            length_config=dropping(num_layers, computing, rule) if shares else keeping_all(num_layers, computing),
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
        return early_layers(self.scorers(), self.model.config.num_hidden_layers)

    def _scorer_targets(
        self,
        batch: TokenBatch,
        computing: Collection[int],
        output: ReferenceOutput,
        soft_labels: Tensor,
        biases: Mapping[int, Tensor],
    ) -> dict[int, ScorerTarget]:
        """Targets by layer of the scorers that learn in a step; `biases` is empty if the pass dropped tokens."""
        task, teacher = self.reference.task, self.task.outputs_of(soft_labels)
        importance = None
        if biases and self.early_layers():
            importance = token_importance(task.importance_scalar(output.outputs, teacher, inputs_of(batch)), biases)
        significance = task.significance_targets(teacher, self.droppable(batch)).float()
        return scorer_targets(significance, computing, self.model.config.num_hidden_layers, importance)
