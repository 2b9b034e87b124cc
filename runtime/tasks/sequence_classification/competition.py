"""Which documents of a query run all layers: those whose early score leaves them a chance of the first places.

The documents are taken in the order of their early scores, `STEP` at a time. The *bar* is the final score in the last
place that counts, among the documents that have one. A document that the bar exceeds by more than the margin when its
turn comes is dropped, and with it all that follow: their early scores are lower, and the bar never falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

STEP = 8
"""Documents that get their final scores between two looks at the bar. A margin holds for the step it was chosen with:
fewer documents at a time would raise the bar earlier, and drop more."""

Scores = npt.NDArray[np.float32]


def compete(
    early: Scores, finish: Callable[[Sequence[int]], Scores], top_n: int, margin: float
) -> dict[int, np.float32]:
    """The final scores of all documents but those that are dropped.

    Args:
        early: Early score of each document, on the scale of final scores, float32 [n].
        finish: Returns the final scores of some documents, given by their indices, float32 [len(indices)].
        top_n: Number of places that count. As many documents always get their final scores.
        margin: Drop a document if the bar exceeds its early score by more than this; infinite to drop none.

    Returns:
        The final scores by document, at least ``min(top_n, n)`` of them.
    """
    order = promising_first(early)
    final: dict[int, np.float32] = {}
    turn = order[:top_n]
    while turn:
        final.update(zip(turn, finish(turn), strict=True))
        done = len(final)
        bar = _bar(list(final.values()), top_n)
        turn = [i for i in order[done : done + STEP] if lag(bar, early[i]) <= margin]
    return final


def promising_first(early: Scores) -> list[int]:
    """Documents by falling early score; equal ones in the order in which they were given."""
    order: list[int] = np.argsort(-early, kind="stable").tolist()
    return order


def lag(bar: float | np.float32, early: float | np.float32) -> float:
    """By how much the bar exceeds an early score."""
    return float(bar) - float(early)


def lags(early: Scores, final: Scores, top_n: int) -> npt.NDArray[np.float64]:
    """By how much the bar exceeds the early score of each document when its turn comes, if none is dropped before.

    A margin of at least this keeps the document. In the order of early scores the values never fall, so that `compete`
    drops exactly the documents whose value exceeds the margin.

    Args:
        early: Early score of each document, float32 [n].
        final: Its final score, float32 [n].
        top_n: Number of places that count.

    Returns:
        float64 [n]; -inf for the first `top_n` documents.
    """
    order = promising_first(early)
    result = np.full(len(order), -np.inf)
    for first in range(top_n, len(order), STEP):
        bar = _bar(final[order[:first]].tolist(), top_n)
        for i in order[first : first + STEP]:
            result[i] = lag(bar, early[i])
    return result


def needed_margin(early: Scores, final: Scores, top_n: int) -> float:
    """The smallest margin, at least 0, with which the first `top_n` places are those without dropping.

    Equal final scores count in the order of the documents, as in a ranking.
    """
    best = np.argsort(-final, kind="stable")[:top_n]
    return max(0.0, float(lags(early, final, top_n)[best].max()))


def _bar(final: Sequence[float | np.float32], top_n: int) -> float:
    """The final score in the last place that counts."""
    return float(sorted(final, reverse=True)[:top_n][-1])
