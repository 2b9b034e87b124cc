"""What scorers learn, in calibration as in training: their targets, and the loss against these."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .reference import ReferenceOutput
from .scorer import Scorer

WEIGHT_OF_KEPT = 5.0
"""Loss weight of tokens to keep; others have 1. Dropping a needed token costs more than keeping another. Targets with
token importance are not weighted: they are between 0 and 1 for most tokens."""

_LEAST_SIGNIFICANCE = 1e-6  # also the least distance from 1, so that logarithms are finite


class ScorerTarget(NamedTuple):
    """The target of a scorer.

    Attributes:
        keep: For each token `[B, L]` the probability that it should be kept.
        weight_of_kept: Weight of tokens that should be kept, relative to those that should not.
    """

    keep: Tensor
    weight_of_kept: float = WEIGHT_OF_KEPT


def early_layers(layers: Collection[int], num_layers: int) -> list[int]:
    """Those of the layers, in the first half of the model, whose scorers also learn token importance."""
    if num_layers == 1:  # there is no later layer
        return []
    return [layer for layer in layers if layer < num_layers / 2]


def scorer_targets(
    significance: Tensor, layers: Collection[int], num_layers: int, importance: Mapping[int, Tensor] | None = None
) -> dict[int, ScorerTarget]:
    """The targets of scorers by layer; `early_layers` have none if token importance is not known.

    Args:
        significance: The significance of tokens `[B, L]` that the task computes from the teacher's outputs.
        layers: Layers with a scorer.
        num_layers: Number of layers of the model.
        importance: The result of `token_importance`. Early layers learn the mean of it and of `significance`.
    """
    early = early_layers(layers, num_layers)
    targets = {layer: ScorerTarget(significance) for layer in layers if layer not in early}
    if importance is not None:
        targets |= {layer: ScorerTarget((significance + importance[layer]) / 2, 1.0) for layer in early}
    return targets


def scorer_loss(output: ReferenceOutput, targets: Mapping[int, ScorerTarget], droppable: Tensor) -> Tensor:
    """The `token_loss` of each layer with a target, averaged over these layers.

    Args:
        output: The output of a pass in which all layers with a target computed their significance.
        targets: The targets by layer, at least one.
        droppable: 1 for the tokens that count, `[B, L]`.
    """
    losses = []
    for layer, target in targets.items():
        positions = output.entering[layer]
        keep, counted = at_positions(target.keep, positions), at_positions(droppable, positions)
        losses.append(token_loss(output.significance[layer], keep, counted, target.weight_of_kept))
    return torch.stack(losses).mean()


def token_loss(significance: Tensor, keep: Tensor, counted: Tensor, weight_of_kept: float) -> Tensor:
    """Binary cross-entropy of significance with the probability that a token should be kept, averaged over tokens.

    Args:
        significance: Significance `[B, R]` of the tokens that enter a layer.
        keep: The targets `[B, R]`.
        counted: 1 for the tokens that count, `[B, R]`.
        weight_of_kept: See `ScorerTarget`.
    """
    significance = significance.clamp(_LEAST_SIGNIFICANCE, 1 - _LEAST_SIGNIFICANCE)
    loss = -weight_of_kept * keep * significance.log() - (1 - keep) * (1 - significance).log()
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def at_positions(values: Tensor, positions: Tensor) -> Tensor:
    """The values `[B, L]` at positions `[B, R]`, float32; 0 at position L, which fillers have."""
    return torch.cat([values.float(), values.new_zeros(len(values), 1).float()], 1).gather(1, positions)


class TrainedScorer(Scorer):
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
