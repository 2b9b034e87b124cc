"""How sure a difference between two systems is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .checks import require_int
from .errors import InvalidInputError


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `a` - `b` over the same questions, with a bootstrap percentile interval.

    Args:
        a: A score for each question [n].
        b: The other system's scores for the same questions in the same order [n].
        samples: Resamples of the questions, with replacement.
        seed: Makes the interval repeatable.
        level: Share of the resampled means that the interval holds.

    Returns:
        Mean difference, lower and upper end of the interval.

    Raises:
        InvalidInputError: The scores are not two equally long, non-empty rows, or an option is out of range.
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
