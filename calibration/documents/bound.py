"""Margins for a chosen risk: a distribution-free bound from held-out queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import beta, binom

from dynamic_tinybert.runtime.common.errors import DataError

CONFIDENCE = 0.95
"""Probability, over the draw of the held-out queries, with which a bound holds."""


def allowed_changes(queries: int, risk: float, confidence: float = CONFIDENCE) -> int | None:
    """The most changes among some queries that leave, with confidence, a risk of at most `risk`.

    It is the largest count whose Clopper-Pearson upper bound is at most `risk`.

    Args:
        queries: Number of queries, drawn independently.
        risk: Largest probability of a change, in (0, 1).
        confidence: Probability with which that holds.

    Returns:
        The count; None if even no change among so few queries is no evidence.
    """
    count = int(
        binom.ppf(1 - confidence, queries, risk)
    )  # the smallest count whose distribution reaches 1 - confidence
    while count >= 0 and binom.cdf(count, queries, risk) > 1 - confidence:
        count -= 1
    return None if count < 0 else count


def fewest_queries(risk: float, confidence: float = CONFIDENCE) -> int:
    """The smallest number of queries that can bound a risk."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk) - 1e-9)


def margin_of(needed: Sequence[float], risk: float, confidence: float = CONFIDENCE) -> float:
    """The smallest of the needed margins with which, with confidence, a new query changes with at most `risk`.

    A larger margin changes no query that a smaller one does not (`needed_margin`), so the margin is an order statistic
    of the held-out queries, and the bound needs no assumption about how margins are distributed, and no correction for
    the choice: Pr[risk of the margin > `risk`] is the probability that fewer than so many queries of those above the
    true quantile are drawn, a binomial one.

    Args:
        needed: The margin that each held-out query needs.
        risk: Largest probability that the first places of a new query change.
        confidence: Probability, over the draw of the queries, with which that holds.

    Raises:
        DataError: There are too few queries; the message says how many are needed.
    """
    changes = allowed_changes(len(needed), risk, confidence)
    if changes is None:
        raise DataError(
            f"a risk of {risk:.3g} cannot be bounded with {len(needed)} held-out queries: {confidence:.0%} confidence "
            f"needs at least {fewest_queries(risk, confidence)}; give more queries, or allow a larger risk"
        )
    return sorted(needed, reverse=True)[changes]


def interval(changes: int, queries: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two-sided Clopper-Pearson interval of a probability, given how many of some queries changed."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, changes, queries - changes + 1)) if changes else 0.0
    high = float(beta.ppf(1 - tail, changes + 1, queries - changes)) if changes < queries else 1.0
    return low, high
