"""The passes in which scorers learn: which layers drop tokens in them, and how many."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from dynamic_tinybert.runtime.length_config import LengthConfig

from .scorer import RULE_THRESHOLD

_SELECTING_PROBABILITY = 0.6  # each selection takes time, so deployed configurations select in few layers
_LAST_SHARES = (0.13, 0.5)  # a tenth of the tokens is the question; calibrations choose a third or less


def keeping_all(num_layers: int, scored: Collection[int]) -> LengthConfig:
    """The configuration that keeps all tokens but computes some layers' scorers: all scores exceed its thresholds."""
    return LengthConfig((1.0,) * num_layers, tuple(-1.0 if i in scored else None for i in range(num_layers)))


def dropping(num_layers: int, scored: Collection[int], rule_layer: int | None) -> LengthConfig:
    """As `keeping_all`, for passes whose shares replace the thresholds: the context rule's layer drops the question."""
    config = keeping_all(num_layers, scored)
    if rule_layer is None:
        return config
    thresholds = [RULE_THRESHOLD if i == rule_layer else threshold for i, threshold in enumerate(config.thresholds)]
    return LengthConfig(config.keep_ratios, tuple(thresholds))


def draw_shares(layers: Sequence[int], random: np.random.Generator) -> dict[int, float]:
    """Draw some of the layers at random, and for each of them the share of all tokens that it passes on.

    The last share is log-uniform between 0.13 and 0.5, about where calibrations choose their configurations.
    """
    selecting = [layer for layer in sorted(layers) if random.random() < _SELECTING_PROBABILITY] or [max(layers)]
    lowest, highest = np.log(_LAST_SHARES)
    falls = random.uniform(lowest, highest) * random.dirichlet(np.full(len(selecting), 2.0)).cumsum()
    return dict(zip(selecting, np.exp(falls).tolist(), strict=True))
