"""Confidence interval of the difference between two systems."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .checks import require_int
from .errors import InvalidInputError


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `a` - `b` over the same examples, with its bootstrap percentile interval.

    Args:
        a: A score for each example, [n].
        b: The other system's scores for the same examples in the same order, [n].
        samples: Number of resamples of the examples, with replacement.
        seed: Seed of the resampling, so that the interval is reproducible.
        level: Share of the resampled means that lie within the interval.

    Returns:
        Mean difference, lower and upper end of the interval.

    Raises:
        InvalidInputError: The scores are not two non-empty vectors of the same length, or an option is out of range.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise InvalidInputError(f"paired scores need two equal shapes [n], n > 0, not {first.shape} and {second.shape}")
    require_int("samples", samples, 1)
    if not 0 < level < 1:
        raise InvalidInputError(f"level must be between 0 and 1, not {level}")
    differences = first - second
    count = len(differences)
    random = np.random.default_rng(seed)
    means = [differences[random.integers(count, size=count)].mean() for _ in range(samples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(differences.mean()), float(low), float(high)
