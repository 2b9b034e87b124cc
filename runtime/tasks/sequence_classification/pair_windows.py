"""Turn pairs of a query and a document into the windows that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

Pair = tuple[str, str]
"""A query and a document."""


def pair_windows(
    tokenize: WindowTokenizer,
    pairs: Sequence[tuple[Any, Any]],
    name: str,
    *,
    max_seq_len: int,
    doc_stride: int,
    same_query: bool = True,
) -> dict[Pair, list[Window]]:
    """The windows of each different pair, in the order in which they first occur.

    Args:
        tokenize: The tokenizer.
        pairs: Queries and documents.
        name: What an item is called in messages.
        max_seq_len: Maximum length of a window in tokens.
        doc_stride: Number of document tokens that neighbouring windows share.
        same_query: Whether all pairs have the same query; messages about it then name no item.

    Raises:
        InvalidInputError: A text is not a string or has no tokens, or a query fills the window.
    """
    queries: dict[str, Encoding] = {}
    windows: dict[Pair, list[Window]] = {}
    for index, (query, document) in enumerate(pairs):
        of_item = not same_query
        try:
            if not isinstance(query, str) or query not in queries:
                tokens = tokenize.first(query)
                tokenize.require_room(tokens, max_seq_len)
                queries[query] = tokens
            of_item = True
            if isinstance(document, str) and (query, document) in windows:
                continue
            own = tokenize.second(document)
        except InvalidInputError as error:
            if len(pairs) == 1 or not of_item:
                raise
            raise InvalidInputError(f"{name} {index} of {len(pairs)}, counted from 0: {error}") from error
        windows[query, document] = tokenize.windows(queries[query], own, max_seq_len=max_seq_len, doc_stride=doc_stride)
    return windows


class ByDocument:
    """Which windows belong to which document; the best window of a document counts."""

    def __init__(self, windows: Iterable[Sequence[Window]]) -> None:
        """Number the windows of all documents, document by document."""
        per_document = list(windows)
        self.sequences = list(chain.from_iterable(per_document))
        self._first = np.concatenate([[0], np.cumsum([len(own) for own in per_document])]).astype(int)

    def windows_of(self, documents: Iterable[int]) -> list[int]:
        """The numbers of the windows of some documents, document by document."""
        return [w for document in documents for w in range(self._first[document], self._first[document + 1])]

    def best(self, scores: npt.NDArray[np.float32], documents: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """The best score of each document, by default of all, given the scores of all their windows in order."""
        best: npt.NDArray[np.float32] = np.maximum.reduceat(scores, self._starts(documents))
        return best

    def sums(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The sum over the windows of each document, [..., documents], of values of all windows, [..., windows]."""
        sums: npt.NDArray[np.int64] = np.add.reduceat(values, self._starts(None), axis=-1)
        return sums

    def _starts(self, documents: Sequence[int] | None) -> npt.NDArray[np.int64]:
        """Where each document begins among the windows of some documents, by default of all."""
        counts = np.diff(self._first) if documents is None else np.diff(self._first)[list(documents)]
        return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)


def listed(name: str, values: object) -> list[Any]:
    """The items of an iterable that has an order and at least one of them; raises InvalidInputError for others."""
    if isinstance(values, str | bytes | Set | Mapping) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} must be a list, not {type(values).__name__}")
    if isinstance(values, np.ndarray) and not values.ndim:  # which cannot be iterated over, though its class can
        raise InvalidInputError(f"{name} must be a list, not a single {values.dtype}")
    items = list(values)
    if not items:
        raise InvalidInputError(f"there are no {name}; give at least one")
    return items
