"""When requests of an open loop arrive."""

from __future__ import annotations

import numpy as np


def poisson(rate: float, seconds: float, generator: np.random.Generator) -> list[float]:
    """Times of a Poisson process in seconds from its start.

    Args:
        rate: Mean number of arrivals a second.
        seconds: Length of the process.
        generator: Source of the gaps.
    """
    times = np.cumsum(generator.exponential(1 / rate, int(2 * rate * seconds) + 100))
    return [float(time) for time in times if time < seconds]
