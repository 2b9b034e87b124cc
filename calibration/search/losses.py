"""What a trial loses against another on the same examples, and how sure that is on other examples and other groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np

from dynamic_tinybert.runtime.common.bootstrap import cluster_sums, paired_bootstrap

from .trial import Trial

CONFIDENCE = 0.8
"""Probability, one-sided, that a named configuration loses no more than its limit."""

ONE_SIDED = NormalDist().inv_cdf(CONFIDENCE)
"""Number of standard errors between a loss and its upper bound."""

_SAMPLES = 2_000


@dataclass(frozen=True)
class Loss:
    """A mean loss with its standard errors, in points.

    Attributes:
        mean: Mean score lost.
        error: Standard error over other examples.
        group_error: Standard error over other groups of examples, such as articles; 0 where they are not known.
    """

    mean: float
    error: float
    group_error: float = 0.0

    @classmethod
    def of(cls, trial: Trial, reference: Trial, groups: Sequence[str] = ()) -> Self:
        """What `trial` loses against `reference`.

        Args:
            trial: A trial.
            reference: Another one on the same examples.
            groups: The names of the groups of the examples, and perhaps of further ones after them. With fewer than
                two groups there is no error over them.
        """
        lost = np.subtract(reference.scores, trial.scores)
        mean = float(lost.mean())
        own = groups[: len(lost)]
        group_error = 0.0
        if len(set(own)) > 1:
            sums, _ = cluster_sums(lost - mean, own)
            group_error = float((len(sums) / (len(sums) - 1) * (sums**2).sum()) ** 0.5 / len(lost))
        return cls(mean, float(lost.std() / len(lost) ** 0.5), group_error)

    @property
    def largest_error(self) -> float:
        """The larger one of both standard errors."""
        return max(self.error, self.group_error)


def loss_bound(trial: Trial, full: Trial, groups: Sequence[str] = ()) -> float:
    """Upper bound of the points that `trial` loses against `full`, one-sided at 80 %, by paired bootstrap.

    The larger one of two bounds: over the examples, and over their groups.

    Args:
        trial: A trial.
        full: The trial of `full` on the same examples.
        groups: The group of each example; with fewer than two groups, the bound over the examples is taken.
    """
    level = 2 * CONFIDENCE - 1
    bound = paired_bootstrap(full.scores, trial.scores, samples=_SAMPLES, level=level)[2]
    if len(set(groups)) < 2:
        return bound
    return max(bound, paired_bootstrap(full.scores, trial.scores, clusters=groups, samples=_SAMPLES, level=level)[2])
