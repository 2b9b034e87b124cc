"""How well windows match their question: BM25 of the question's tokens, among the windows of one context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.windows import Window

_K1, _B = 1.2, 0.75  # the usual constants


def matches(windows: Sequence[Window]) -> npt.NDArray[np.float64]:
    """For each window, how well it matches its question, [n]: 1 for the best one, 0 without a token of the question.

    The score is BM25 over tokens (Robertson and Zaragoza, 2009), the windows being the documents; divided by the
    largest one.

    Args:
        windows: All windows of one question, at least one.
    """
    question = np.unique(windows[0].input_ids[1 : windows[0].context.start - 1])
    lengths = np.array([window.context.stop - window.context.start for window in windows])
    tokens = np.full((len(windows), lengths.max()), -1)
    for row, window in enumerate(windows):
        tokens[row, : lengths[row]] = window.input_ids[window.context]
    counts = np.stack([(tokens == token).sum(1) for token in question], 1)  # [windows, tokens of the question]
    rarity = np.log((len(windows) + 1) / ((counts > 0).sum(0) + 0.5))
    saturated = counts * (_K1 + 1) / (counts + _K1 * (1 - _B + _B * lengths / lengths.mean())[:, None])
    scores: npt.NDArray[np.float64] = saturated @ rarity
    return scores / max(float(scores.max()), np.finfo(np.float64).tiny)
