"""Measures of a ranking: nDCG and MRR, each over the first documents of the order."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

TOP = 10
"""Number of documents at the top that the published figures look at."""


def ndcg(grades: Sequence[float], top: int = TOP) -> float:
    """Normalised discounted cumulative gain of a ranking, 0 to 1; 0 if no document is relevant.

    The gain of a document is its grade, as in scikit-learn's `ndcg_score` and trec_eval, divided by log2(1 + rank).

    Args:
        grades: Grade of each document in the ranking's order, at least 0; 0 is not relevant.
        top: Number of documents that count.
    """
    best = _gain(sorted(grades, reverse=True), top)
    return _gain(grades, top) / best if best else 0.0


def reciprocal_rank(grades: Sequence[float], top: int = TOP) -> float:
    """1 divided by the rank, from 1, of the first relevant document; 0 if none is among the first `top`."""
    return next((1 / rank for rank, grade in enumerate(grades[:top], 1) if grade > 0), 0.0)


def _gain(grades: Sequence[float], top: int) -> float:
    return sum(grade / log2(1 + rank) for rank, grade in enumerate(grades[:top], 1))
