"""Confidence interval of the difference between two systems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .checks import require_int
from .errors import InvalidInputError


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    clusters: Sequence[str] | None = None,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Mean of `a` - `b` over the same examples, with its bootstrap percentile interval.

    Examples of one cluster, such as questions about one article, are alike. With `clusters`, whole clusters are
    resampled, each with all of its examples (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8), so that the interval is about other clusters and not only about other examples of these.

    Args:
        a: A score for each example, [n].
        b: The other system's scores for the same examples in the same order, [n].
        clusters: The name of each example's cluster, [n]; None if each example is a cluster of its own.
        samples: Number of resamples, with replacement.
        seed: Seed of the resampling, so that the interval is reproducible.
        level: Share of the resampled means that lie within the interval.

    Returns:
        Mean difference, lower and upper end of the interval.

    Raises:
        InvalidInputError: The scores are not two non-empty vectors of the same length, there is another number of
            cluster names or only one cluster, or an option is out of range.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise InvalidInputError(f"paired scores need two equal shapes [n], n > 0, not {first.shape} and {second.shape}")
    require_int("samples", samples, 1)
    if not 0 < level < 1:
        raise InvalidInputError(f"level must be between 0 and 1, not {level}")
    differences = first - second
    random = np.random.default_rng(seed)
    if clusters is None:
        count = len(differences)
        means = [differences[random.integers(count, size=count)].mean() for _ in range(samples)]
    else:
        sums, sizes = cluster_sums(differences, clusters)
        count = len(sums)
        draws = (random.integers(count, size=count) for _ in range(samples))
        means = [sums[drawn].sum() / sizes[drawn].sum() for drawn in draws]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(differences.mean()), float(low), float(high)


def cluster_sums(
    values: npt.NDArray[np.float64], clusters: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The sum of the values of each cluster, and their number, both [clusters], in order of first appearance.

    Raises:
        InvalidInputError: There is another number of names than of values, or only one cluster.
    """
    if len(clusters) != len(values):
        raise InvalidInputError(f"clusters must name one cluster for each of {len(values)} scores, not {len(clusters)}")
    numbers: dict[str, int] = {}
    members = np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
    if len(numbers) < 2:
        raise InvalidInputError(
            f"all {len(values)} scores are of one cluster, {clusters[0]!r:.60}; resampling needs at least two"
        )
    return np.asarray(np.bincount(members, values), np.float64), np.asarray(np.bincount(members), np.int64)
