"""The interface of all rerankers: a call from texts to the order of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Rank = Callable[[str, Sequence[str], int], list[int]]
"""The indices of the best documents for a query, best first: `rank(query, documents, top)`."""
