"""Our reranker: a bundle at one of its length configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynamic_tinybert import Reranker

from .model import Rank


def load(bundle: str, config: str, threads: int, options: Mapping[str, Any]) -> Rank:
    """A bundle; `options` are further ones of `Reranker.rank`."""
    reranker = Reranker.from_pretrained(bundle, num_threads=threads)

    def rank(query: str, documents: Sequence[str], top: int) -> list[int]:
        found = reranker.rank(query, documents, top_n=top, length_config=config, **options)
        return [document["corpus_id"] for document in found]

    return rank
