"""Bounds of a mean loss from held-out queries, for any distribution of losses between 0 and 1."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import binom

CONFIDENCE = 0.95
"""Probability, over the draw of the held-out queries, with which a bound holds."""


def largest_mean(queries: int, risk: float, confidence: float = CONFIDENCE) -> float | None:
    """The largest mean loss of some queries that shows, with confidence, an expected loss of at most `risk`.

    This is the bound of Hoeffding and Bentkus. If a loss falls as a margin grows, the smallest margin with at most this
    mean keeps the risk, without a correction for having chosen it (Bates et al. 2021, "Distribution-free,
    risk-controlling prediction sets", theorem 1 and section 3.1.1, https://arxiv.org/abs/2101.02703).

    Args:
        queries: Number of queries, drawn independently.
        risk: Largest expected loss, in (0, 1).
        confidence: Probability with which that holds.

    Returns:
        The mean, in [0, risk]; None if even no loss among so few queries is no evidence.
    """
    wrong = 1 - confidence

    def evidence(mean: float) -> float:
        return math.log(wrong) + queries * _divergence(mean, risk)

    if evidence(0.0) < 0:
        return None
    by_hoeffding = float(brentq(evidence, 0, risk))
    count = -1  # the largest sum of losses, rounded up, by Bentkus
    while math.e * binom.cdf(count + 1, queries, risk) <= wrong:
        count += 1
    return max(by_hoeffding, count / queries)


def fewest_queries(risk: float, confidence: float = CONFIDENCE) -> int:
    """The smallest number of queries that can bound a risk."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk) - 1e-9)


def _divergence(mean: float, risk: float) -> float:
    """The Kullback-Leibler divergence of two coins, in nats; `mean` is at most `risk`."""
    heads = 0.0 if mean == 0 else mean * math.log(mean / risk)
    return heads + (1 - mean) * math.log((1 - mean) / (1 - risk))
