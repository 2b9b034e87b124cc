"""Systems take turns in blocks, so that a machine whose speed drifts is as fast for one as for the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

Interval = tuple[float, float, float]  # the value, and the ends of its 95 % interval


def turns(counts: Mapping[str, int], block: int, what: str) -> Iterator[tuple[str, range]]:
    """Let each system run as many items as its count says, in blocks; every other round in reverse order.

    Args:
        counts: Number of items of each system, by its name.
        block: Number of items in a turn.
        what: What the progress bar says.
    """
    for start in tqdm(range(0, max(counts.values()), block), desc=what, disable=None):
        forth = start // block % 2 == 0
        for name in counts if forth else reversed(list(counts)):
            if items := range(start, min(start + block, counts[name])):
                yield name, items


def ratio_of_blocks(own: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], block: int) -> Interval:
    """The time of one system divided by that of another: the median over blocks, with its bootstrap interval.

    Args:
        own: Times [passes, items].
        reference: Those of the other system.
        block: Number of items in a turn.
    """
    starts = np.arange(0, own.shape[1], block)
    ratios = (np.add.reduceat(own, starts, axis=1) / np.add.reduceat(reference, starts, axis=1)).ravel()
    resampled = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)
