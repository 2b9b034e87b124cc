"""What dropping documents costs a query: the share of the relevance in its first places that is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .observed import Observed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Relevance:
    """The documents in the first places of a query.

    Attributes:
        documents: Their numbers, best first.
        shares: The share of the query's relevance that each place holds; their sum is at most 1.
    """

    documents: npt.NDArray[np.intp]
    shares: Floats

    @classmethod
    def of(cls, observed: Observed, places: int) -> Relevance:
        """Rank by final logits. The sum of the shares is the query's nDCG if all documents run.

        A document in place r with the grade g holds g / log2(1 + r), divided by what the best order would hold. Where
        nobody has judged the documents, the model's own probabilities are the grades, and at least 1 is divided by, so
        that a query without a relevant document has little to lose.
        """
        final = observed.final
        first = np.argsort(-final, kind="stable")[:places]
        discounts = 1 / np.log2(np.arange(2, len(first) + 2))
        grades = observed.grades
        if grades is None:
            own = 1 / (1 + np.exp(-final.astype(np.float64)))
            return cls(first, own[first] * discounts / max(1.0, float(own[first] @ discounts)))
        best = float(np.sort(grades)[::-1][:places] @ discounts)
        return cls(first, grades[first] * discounts / best)

    def lost(self, stays: npt.NDArray[np.bool_]) -> float:
        """The share that is lost if only some documents stay, bool [n]; an upper bound of what nDCG falls."""
        return float(self.shares[~stays[self.documents]].sum())


def smallest_margin(behind: Sequence[Floats], relevance: Sequence[Relevance], mean: float) -> float:
    """The smallest margin, at least 0, with which queries lose at most `mean` of their relevance on average.

    Args:
        behind: For each query, by how much each document lags behind (`lags`), float64 [n]; a margin keeps those that
            lag behind by no more.
        relevance: The first places of each query.
        mean: The largest mean loss.
    """
    lags = np.concatenate([own[first.documents] for own, first in zip(behind, relevance, strict=True)])
    shares = np.concatenate([first.shares for first in relevance])
    far_first = np.argsort(-lags, kind="stable")
    lost = np.cumsum(shares[far_first]) / len(behind)
    too_much = int(np.searchsorted(lost, mean * (1 + 1e-12), side="right"))  # the first document that must stay
    return 0.0 if too_much == len(lags) else max(0.0, float(lags[far_first[too_much]]))
