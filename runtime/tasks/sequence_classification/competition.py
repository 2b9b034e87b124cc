"""Which documents of a query run to the end: those whose early score leaves them a chance of the first places."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]


def lags(early: Scores, places: int) -> npt.NDArray[np.float64]:
    """By how much the best early score of a query exceeds that of each document; a margin of as much keeps it.

    An error that the early scores of all documents share does not matter.

    Args:
        early: Early score of each document, float32 [n].
        places: Number of places that count.

    Returns:
        float64 [n]; -inf for the `places` documents with the best early scores, which always run. Of equal ones, those
        that were given first.
    """
    result: npt.NDArray[np.float64] = float(early.max()) - early.astype(np.float64)
    result[np.argsort(-early, kind="stable")[:places]] = -np.inf
    return result


def staying(early: Scores, places: int, margin: float) -> list[int]:
    """The documents that run to the end, in the order in which they were given; arguments as for `lags`."""
    found: list[int] = np.flatnonzero(lags(early, places) <= margin).tolist()
    return found
