"""The length configurations of a training: those that steps draw, and those that a front is measured at."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.runtime.length_config import LengthConfig

ATTENTION_SHARES = (0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.27, 0.2, 0.15, 0.11)
"""Share of the tokens that the last layer keeps, for each point of a front with attention significance. The shares of
earlier layers fall evenly to it."""

LEARNT_SHARES = (0.5, 0.42, 0.36, 0.31, 0.27, 0.235, 0.205, 0.18, 0.155, 0.13)
"""Share of the tokens that the last layer with a scorer keeps, for each point of a front with learnt significance. The
first layer keeps twice as many, as in configurations that calibrations choose; shares between them fall evenly."""

_SELECTING_PROBABILITY = 0.6  # each selection takes time, so deployed configurations select in few layers
_LAST_SHARES = (0.13, 0.5)  # a tenth of the tokens is the question; calibrations choose a third or less


def keeping_all(num_layers: int, scored: Collection[int]) -> LengthConfig:
    """The configuration that keeps all tokens but computes some layers' scorers: all scores exceed its thresholds."""
    return LengthConfig((1.0,) * num_layers, tuple(-1.0 if i in scored else None for i in range(num_layers)))


def falling_shares(num_layers: int, selecting: Collection[int], first: float, last: float) -> Schedule:
    """Shares that fall by the same factor from one selecting layer to the next; a single one keeps `last`."""
    shares = np.geomspace(last, first, len(selecting))[::-1].tolist()
    return Schedule.of_layers(num_layers, dict(zip(sorted(selecting), shares, strict=True)))


def draw_shares(layers: Sequence[int], random: np.random.Generator) -> dict[int, float]:
    """Draw some of the layers at random, and for each of them the share of all tokens that it passes on.

    The last share is log-uniform between 0.13 and 0.5, about where calibrations choose their configurations.
    """
    selecting = [layer for layer in sorted(layers) if random.random() < _SELECTING_PROBABILITY] or [max(layers)]
    lowest, highest = np.log(_LAST_SHARES)
    falls = random.uniform(lowest, highest) * random.dirichlet(np.full(len(selecting), 2.0)).cumsum()
    return dict(zip(selecting, np.exp(falls).tolist(), strict=True))
