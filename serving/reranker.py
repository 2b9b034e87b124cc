"""Rank documents asynchronously, in the event loop of a service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import TextClassifier
from dynamic_tinybert.runtime.tasks.sequence_classification.pair_windows import Pair
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import RankedDocument, Reranker

from .classifier import AsyncTextClassifier, in_steps
from .usage import Computed


class AsyncReranker(AsyncTextClassifier):
    """Ranks documents as a `Reranker` does, with the same results, without blocking the event loop.

    It also classifies, as `AsyncTextClassifier` does: a model that ranks is a classifier with one output. A pickle
    holds the reranker and the arguments, without the queue.

    Attributes:
        reranker: What ranks; others may use it at the same time.
    """

    _synchronous = Reranker

    def __init__(self, reranker: Reranker, *, max_queued: int = 128, workers: int | None = None) -> None:
        """Rank with a reranker; other arguments and errors are those of `AsyncService`."""
        super().__init__(TextClassifier(reranker.model), max_queued=max_queued, workers=workers)
        self.reranker = reranker
        self._stepped_reranker = in_steps(reranker)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return partial(type(self), max_queued=self.max_queued, workers=self.workers), (self.reranker,)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path | None = None,
        *,
        max_queued: int = 128,
        workers: int | None = None,
        **options: Any,  # noqa: ANN401 - those of `Reranker.from_pretrained`
    ) -> Self:
        """Load a bundle, by default that of the package, if it has one; errors are those of `Reranker`'s. It blocks."""
        return cls(Reranker.from_pretrained(id_or_path, **options), max_queued=max_queued, workers=workers)

    async def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        return_documents: bool = False,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `Reranker.rank`
    ) -> list[RankedDocument]:
        """Sort documents by how well they answer a query; arguments and results are those of `Reranker.rank`.

        A request runs one batch of windows in a turn, then all others that wait get a turn. Cancelling, `timeout`,
        `deadline` and further errors are those of a call of `AsyncTextClassifier`.
        """
        options |= {"top_n": top_n, "return_documents": return_documents}
        return (await self.ranked(query, documents, timeout=timeout, deadline=deadline, **options)).result

    async def ranked(
        self,
        query: str,
        documents: Iterable[str],
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `Reranker.rank`
    ) -> Computed[list[RankedDocument]]:
        """As `rank`; also says which length configuration ran, and how many tokens each layer kept."""
        # Stages are no calls of the model and would not wait for turns, so documents leave by their words alone.
        function = partial(self._stepped_reranker.rank, query, documents, **options)
        return await self._in_steps(function, options, timeout, deadline)

    async def predict(
        self,
        pairs: Pair | Iterable[Pair] | Iterable[list[str]],
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `Reranker.predict`
    ) -> np.float32 | npt.NDArray[np.float32]:
        """The score of each pair of a query and a document; arguments and results are those of `Reranker.predict`.

        `timeout`, `deadline` and further errors are those of `rank`.
        """
        predict: Callable[..., np.float32 | npt.NDArray[np.float32]] = self._stepped_reranker.predict
        return (await self._in_steps(partial(predict, pairs, **options), options, timeout, deadline)).result
