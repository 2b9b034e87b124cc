"""How well the words of a query and of its documents match, without a model: Okapi BM25 within the list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.windows import Window

K1, B = 1.5, 0.75
"""BM25's usual constants: how soon a repeated token adds no more, and how much long texts are discounted."""


def bm25(windows: Sequence[Window]) -> npt.NDArray[np.float32]:
    """BM25 of each window for the query that all of them begin with.

    Terms are the query's different tokens. How rare a token is, is counted among these windows, as Lucene does it:
    ln(1 + (N - n + 0.5) / (n + 0.5)) for a token in n of N windows.

    Args:
        windows: Windows of the documents of one query, at least one.

    Returns:
        float32 [windows], at least 0.
    """
    first = windows[0].encoding  # whose sequence_ids are None in the query, if its tokens are used for many documents
    before = windows[0].context.start
    query = [i for i, special in zip(first.ids[:before], first.special_tokens_mask, strict=False) if not special]
    terms = np.unique(query)
    counts = np.empty((len(windows), len(terms)))
    lengths = np.empty(len(windows))
    for row, window in enumerate(windows):
        tokens = np.asarray(window.encoding.ids[window.context])
        counts[row] = (tokens[:, None] == terms).sum(0)
        lengths[row] = len(tokens)
    containing = (counts > 0).sum(0)
    rarity = np.log1p((len(windows) - containing + 0.5) / (containing + 0.5))
    saturation = K1 * (1 - B + B * lengths / lengths.mean())
    found: npt.NDArray[np.float32] = ((counts * (K1 + 1) / (counts + saturation[:, None])) @ rarity).astype(np.float32)
    return found
