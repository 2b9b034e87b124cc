"""How much a step drops, sampled where calibrations choose their length configurations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SELECTS = 0.6  # chance of a layer with a scorer: each selection takes time, so that few layers select when deployed
_LAST_SHARES = (0.13, 0.5)  # a tenth is the question; configurations that calibrations choose keep a third or less


def draw_shares(layers: Sequence[int], random: np.random.Generator) -> dict[int, float]:
    """Shares of the tokens that some of the layers pass on, down to one from 0.13 to 0.5 whose logarithm is uniform."""
    selecting = [layer for layer in sorted(layers) if random.random() < _SELECTS] or [max(layers)]
    lowest, highest = np.log(_LAST_SHARES)
    falls = random.uniform(lowest, highest) * random.dirichlet(np.full(len(selecting), 2.0)).cumsum()
    return dict(zip(selecting, np.exp(falls).tolist(), strict=True))
