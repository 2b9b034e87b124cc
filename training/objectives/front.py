"""Learnt selection by sampling: each step drops as one schedule of the front will when it is deployed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.significance.thresholds import RULE_THRESHOLD
from dynamic_tinybert.modeling.reference import ReferenceOutput
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.modeling.tasks.question_answering import near_answer as worth_keeping
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import Batch, belief_of, inputs_of
from dynamic_tinybert.training.front_meter import keeping_all

from .answer_losses import belief_loss
from .base import Moment
from .importance import open_gates, worth_of
from .operating_points import draw_shares
from .selective import SCORERS_FIRST, SelectiveObjective, Target, context_of


class FrontSampling(SelectiveObjective):
    """The same answers whatever is kept: half those of the data, half what the model believed before the training.

    A step is one pass: of a quarter of the steps all tokens, of the others what a configuration keeps that is drawn
    where the front lies. Tokens are dropped by gathering, which makes the step cheaper, too.

    What scorers learn is the chance that the answer starts or ends near a token. In the first half of the layers that
    is only half of it, the other half what the token is worth to the layers behind (`worth_of`): there a token may
    matter that is far from the answer. As only passes that keep everything tell, these scorers learn from them alone.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two, which learn
            alone at first.
        scorer_weight: Of the scorers' loss.
    """

    needs_taught = True
    keeps_all = 0.25
    """Chance of a step."""

    def __init__(
        self,
        model: BertForQuestionAnswering,
        scorers: Mapping[int, Scorer] | None = None,
        *,
        scorer_weight: float = 1.0,
    ) -> None:
        super().__init__(model, scorers, scorer_weight)
        self._scorers_first = 0.0 if scorers else SCORERS_FIRST

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """Parts `full` or `dropped`, as the step keeps or drops, and `scorers` where one of those asked learns."""
        alone = moment.share < self._scorers_first
        self.leave_scorers_alone(alone)
        random = np.random.default_rng([moment.seed, moment.step])
        layers, num_layers = list(self.scorers()), self.model.config.num_hidden_layers
        shares = {} if alone else self.drawn_shares(random)
        gates = {} if shares else open_gates(batch, num_layers)
        output: ReferenceOutput = self.reference(
            **inputs_of(batch),
            length_config=self._config(shares or layers, drops=bool(shares)),
            shares=shares,
            attention_bias=gates,
        )
        belief, context = belief_of(batch), context_of(batch)
        start, end = belief.clamp(min=torch.finfo(belief.dtype).tiny).log().unbind(-1)  # logits but for a constant
        near_answer = worth_keeping(start, end, context).float()
        early = self.early_layers()
        targets = {layer: Target(near_answer) for layer in shares or layers if layer not in early}
        if gates and early:
            worth = worth_of(output, gates, belief, batch)
            targets |= {layer: Target((near_answer + worth[layer]) / 2, weight_of_kept=1.0) for layer in early}
        losses = {"dropped" if shares else "full": belief_loss(output, belief, batch)}
        if targets:
            losses["scorers"] = self.scorer_loss(output, targets, context)
        return losses

    def drawn_shares(self, random: np.random.Generator) -> dict[int, float]:
        """What a step's layers keep; none if it keeps everything."""
        return {} if random.random() < self.keeps_all else draw_shares(list(self.scorers()), random)

    def early_layers(self) -> list[int]:
        """Those with scorers that learn from steps alone that keep everything."""
        num_layers = self.model.config.num_hidden_layers
        if num_layers == 1:  # none is behind it
            return []
        return [layer for layer in self.scorers() if layer < num_layers / 2]

    def _config(self, asked: Collection[int], *, drops: bool) -> LengthConfig:
        """That in which these layers ask their scorers; whether they drop by what these say, shares decide."""
        config = keeping_all(self.model.config.num_hidden_layers, asked)
        rule = self.reference.rule_layer
        if not drops or rule is None:
            return config
        thresholds = [RULE_THRESHOLD if i == rule else threshold for i, threshold in enumerate(config.thresholds)]
        return LengthConfig(config.keep_ratios, tuple(thresholds))
