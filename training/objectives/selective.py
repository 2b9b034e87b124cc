"""Scorers in training: where they are, how they begin, and what they learn beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.significance.fitting import WEIGHT_OF_KEPT
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer, with_context_rule
from dynamic_tinybert.training.batches import Batch

from .base import Objective

SCORERS_FIRST = 0.1
"""Part of a training in which scorers learn from the model as it is, and nothing is dropped: new ones know nothing."""

_LEARNING_RATE = 1e-3  # scorers are small
_LEARNING_RATE_FITTED = 3e-4  # to go on from what they know
_LEAST_CHANCE = 1e-6


class Target(NamedTuple):
    """What a scorer learns.

    Attributes:
        worth: For each token `[B, L]` the probability that it is worth keeping.
        weight_of_kept: How much a token that is weighs against one that is not.
    """

    worth: Tensor
    weight_of_kept: float = WEIGHT_OF_KEPT


class SelectiveObjective(Objective):
    """An objective that trains scorers with the model.

    Args:
        model: The model.
        scorers: Scorers to begin with, by layer; without any, new ones for all layers but the last two.
        scorer_weight: Of their loss. They learn the same with any; it says how much the model learns for them.
    """

    def __init__(
        self, model: BertForQuestionAnswering, scorers: Mapping[int, Scorer] | None = None, scorer_weight: float = 1.0
    ) -> None:
        super().__init__(model)
        self.scorer_weight = scorer_weight
        self._scorers_rate = _LEARNING_RATE_FITTED if scorers else _LEARNING_RATE
        width = model.config.hidden_size
        begun = scorers or {i: Scorer(width) for i in range(max(1, model.config.num_hidden_layers - 2))}
        self.scorer_of_layer = nn.ModuleDict({str(layer): _TrainedScorer(scorer) for layer, scorer in begun.items()})
        # in a tuple, so that its weights, which are those above, are not counted twice
        deployed = with_context_rule(self.scorers(), model.config.num_hidden_layers)
        self._shared = (ReferenceModel(model, "learnt", deployed),)

    @property
    def reference(self) -> ReferenceModel:
        """The model as it will be deployed."""
        return self._shared[0]

    def scorers(self) -> Mapping[int, Scorer]:
        """All of them."""
        return {int(layer): cast(Scorer, scorer) for layer, scorer in self.scorer_of_layer.items()}

    def deployed_scorers(self) -> Mapping[int, Scorer | ContextRule]:
        """All of them and the rule that calibration adds."""
        return {int(layer): cast(Scorer | ContextRule, scorer) for layer, scorer in self.reference.scorers.items()}

    def learning_rates(self) -> Mapping[str, float]:
        """That of the scorers."""
        return {"scorer_of_layer.": self._scorers_rate}

    def leave_scorers_alone(self, alone: bool) -> None:
        """Whether the model shall learn nothing from the scorers' loss."""
        for scorer in self.scorer_of_layer.values():
            cast(_TrainedScorer, scorer).alone = alone

    def scorer_loss(self, output: ReferenceOutput, targets: Mapping[int, Target], context: Tensor) -> Tensor:
        """`scorer_loss` with its weight."""
        return self.scorer_weight * scorer_loss(output, targets, context)


class _TrainedScorer(Scorer):
    """A scorer that computes in FP32 under mixed precision: thresholds tell apart what bfloat16 rounds to the same.

    While it is `alone`, the model does not learn from it.
    """

    def __init__(self, begun: Scorer) -> None:
        super().__init__(
            begun.match_token.in_features,
            begun.output.in_features,
            begun.kernel_sizes,
            heads=begun.heads,
            head_size=begun.match_token.out_features // begun.heads,
        )
        self.load_state_dict(begun.state_dict())
        self.alone = False

    def logits(self, state: Tensor, question: Tensor, real: Tensor) -> Tensor:
        """As the scorer's."""
        with torch.autocast(state.device.type, enabled=False):
            return super().logits((state.detach() if self.alone else state).float(), question.float(), real.float())


def context_of(batch: Batch) -> Tensor:
    """1 for tokens that answers are made of, `[B, L]`."""
    return batch["attention_mask"] * batch["token_type_ids"]


def scorer_loss(output: ReferenceOutput, targets: Mapping[int, Target], context: Tensor) -> Tensor:
    """Binary cross-entropy of what scorers say of the context's tokens that they see, mean of the layers with a target.

    Args:
        output: With the significance of these layers, if not of more.
        targets: What to learn, by layer, for one at least.
        context: 1 for tokens that answers are made of, `[B, L]`.
    """
    losses = []
    beyond = output.start_logits.new_zeros(len(context), 1).float()  # where fillers point to
    counts = torch.cat([context.to(beyond), beyond], 1)
    for layer, target in targets.items():
        positions = output.entering[layer]
        chance = output.significance[layer].clamp(_LEAST_CHANCE, 1 - _LEAST_CHANCE)
        wanted, counted = torch.cat([target.worth, beyond], 1).gather(1, positions), counts.gather(1, positions)
        loss = -target.weight_of_kept * wanted * chance.log() - (1 - wanted) * (1 - chance).log()
        losses.append((loss * counted).sum() / counted.sum().clamp(min=1))
    return torch.stack(losses).mean()
