"""The base of objectives that train scorers with the model: their layers, their initial weights and their loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.calibration.significance.fitting import WEIGHT_OF_KEPT
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer, with_context_rule
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import Objective, Unregistered

WARM_UP = 0.1
"""Fraction of the training during which new scorers learn on the unchanged model, and nothing is dropped."""

_LEARNING_RATE = 1e-3  # of new scorers: they are small
_LEARNING_RATE_FITTED = 3e-4  # of scorers that were fitted before
_LEAST_SIGNIFICANCE = 1e-6  # also the least distance from 1, so that logarithms are finite


class ScorerTarget(NamedTuple):
    """The target of a scorer.

    Attributes:
        keep: For each token `[B, L]` the probability that it should be kept.
        weight_of_kept: Weight of tokens that should be kept, relative to those that should not.
    """

    keep: Tensor
    weight_of_kept: float = WEIGHT_OF_KEPT


class ScorerObjective(Objective):
    """An objective that trains scorers with the model.

    Args:
        model: The model.
        scorers: Scorers to start from, by layer; without any, new ones for all layers but the last two.
        scorer_weight: Weight of the scorers' loss. With AdamW it does not change how scorers learn, but how much the
            model learns from their loss.
    """

    def __init__(
        self, model: BertPreTrainedModel, scorers: Mapping[int, Scorer] | None = None, scorer_weight: float = 1.0
    ) -> None:
        super().__init__(model)
        self.scorer_weight = scorer_weight
        self._scorer_learning_rate = _LEARNING_RATE_FITTED if scorers else _LEARNING_RATE
        width = model.config.hidden_size
        initial = scorers or {i: Scorer(width) for i in range(max(1, model.config.num_hidden_layers - 2))}
        self.scorer_of_layer = nn.ModuleDict({str(layer): _TrainedScorer(scorer) for layer, scorer in initial.items()})
        deployed = with_context_rule(self.scorers(), model.config.num_hidden_layers)
        self._reference = Unregistered(ReferenceModel(model, "learnt", deployed))  # shares the weights above

    @property
    def reference(self) -> ReferenceModel:
        """The model as it will be deployed, with the scorers and the context rule that calibration adds."""
        return self._reference.module

    def scorers(self) -> Mapping[int, Scorer]:
        """The scorers by layer."""
        return {int(layer): cast(Scorer, scorer) for layer, scorer in self.scorer_of_layer.items()}

    def deployed_scorers(self) -> Mapping[int, Scorer | ContextRule]:
        """The scorers and the context rule that calibration adds, by layer."""
        return {int(layer): cast(Scorer | ContextRule, scorer) for layer, scorer in self.reference.scorers.items()}

    def learning_rates(self) -> Mapping[str, float]:
        """The learning rate of the scorers, by the prefix of their parameters."""
        return {"scorer_of_layer.": self._scorer_learning_rate}

    def detach_scorers(self, detached: bool) -> None:
        """Set whether the scorers' loss is detached from the model, which then learns nothing from it."""
        for scorer in self.scorer_of_layer.values():
            cast(_TrainedScorer, scorer).detached = detached

    def droppable(self, batch: TokenBatch) -> Tensor:
        """1 for tokens that scorers decide about, `[B, L]` int64; 0 for protected tokens and padding."""
        return batch["attention_mask"] * ~self.reference.task.protected(inputs_of(batch))

    def scorer_loss(self, output: ReferenceOutput, targets: Mapping[int, ScorerTarget], droppable: Tensor) -> Tensor:
        """The function `scorer_loss`, times the weight of the scorers' loss."""
        return self.scorer_weight * scorer_loss(output, targets, droppable)


class _TrainedScorer(Scorer):
    """A scorer that computes in FP32 under mixed precision: bfloat16 would round scores near a threshold to one value.

    While it is `detached`, the model does not learn from it.
    """

    def __init__(self, initial: Scorer) -> None:
        super().__init__(
            initial.match_token.in_features,
            initial.output.in_features,
            initial.kernel_sizes,
            heads=initial.heads,
            head_size=initial.match_token.out_features // initial.heads,
        )
        self.load_state_dict(initial.state_dict())
        self.detached = False

    def logits(self, state: Tensor, question: Tensor, real: Tensor) -> Tensor:
        """See `Scorer.logits`."""
        with torch.autocast(state.device.type, enabled=False):
            return super().logits((state.detach() if self.detached else state).float(), question.float(), real.float())


def scorer_loss(output: ReferenceOutput, targets: Mapping[int, ScorerTarget], droppable: Tensor) -> Tensor:
    """Binary cross-entropy of significance, averaged over the droppable tokens that enter a layer, then over layers.

    Args:
        output: The output of a pass in which all layers with a target computed their significance.
        targets: The targets by layer, at least one.
        droppable: 1 for the tokens that count, `[B, L]`.
    """
    losses = []
    filler = next(iter(output.outputs.values())).new_zeros(len(droppable), 1).float()  # the row that fillers point to
    counts = torch.cat([droppable.to(filler), filler], 1)
    for layer, target in targets.items():
        positions = output.entering[layer]
        significance = output.significance[layer].clamp(_LEAST_SIGNIFICANCE, 1 - _LEAST_SIGNIFICANCE)
        keep, counted = torch.cat([target.keep, filler], 1).gather(1, positions), counts.gather(1, positions)
        loss = -target.weight_of_kept * keep * significance.log() - (1 - keep) * (1 - significance).log()
        losses.append((loss * counted).sum() / counted.sum().clamp(min=1))
    return torch.stack(losses).mean()
