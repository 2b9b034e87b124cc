"""The length configurations that the front of a training is measured at."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dynamic_tinybert.calibration.search.schedules import Schedule

ATTENTION_SHARES = (0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.27, 0.2, 0.15, 0.11)
"""Share of the tokens that the last layer keeps, for each point of a front with attention significance. The shares of
earlier layers fall evenly to it."""

LEARNT_SHARES = (0.5, 0.42, 0.36, 0.31, 0.27, 0.235, 0.205, 0.18, 0.155, 0.13)
"""Share of the tokens that the last layer with a scorer keeps, for each point of a front with learnt significance. The
first layer keeps twice as many, as in configurations that calibrations choose; shares between them fall evenly."""


def falling_shares(num_layers: int, selecting: Collection[int], first: float, last: float) -> Schedule:
    """Shares that fall by the same factor from one selecting layer to the next; a single one keeps `last`."""
    shares = np.geomspace(last, first, len(selecting))[::-1].tolist()
    return Schedule.of_layers(num_layers, dict(zip(sorted(selecting), shares, strict=True)))
