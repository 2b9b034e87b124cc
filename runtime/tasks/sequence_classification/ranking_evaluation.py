"""nDCG, MRR, cost and latency of a reranker over rankings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from time import perf_counter

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig

from .classifier import BATCH_SIZE
from .ranking import TOP, ndcg, reciprocal_rank
from .ranking_files import Ranking
from .reranker import Reranker


@dataclass(frozen=True)
class RankingEvaluation:
    """The results of an evaluation over rankings.

    Attributes:
        ids: Id of each query. All other values per query are in the same order.
        orders: The documents of each query by their index, best first.
        query_ndcg: nDCG@10 of each query in percent.
        query_mrr: Reciprocal rank of each query in percent, 0 if the first 10 have no relevant document.
        query_ms: Time of each query, from texts to the order, in milliseconds.
        query_documents: Number of documents of each query.
    """

    ids: tuple[str, ...]
    orders: tuple[tuple[int, ...], ...]
    query_ndcg: tuple[float, ...]
    query_mrr: tuple[float, ...]
    query_ms: tuple[float, ...]
    query_documents: tuple[int, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """NDCG of each query in percent."""
        return self.query_ndcg

    @property
    def means(self) -> dict[str, float]:
        """The means of the queries, in percent."""
        return {f"ndcg@{TOP}": fmean(self.query_ndcg), f"mrr@{TOP}": fmean(self.query_mrr)}

    def latency_ms(self, percentile: float) -> float:
        """A percentile (0 to 100) of the queries' times, in milliseconds."""
        return float(np.percentile(self.query_ms, percentile))

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, means and percentiles included."""
        times = {"latency_p50_ms": self.latency_ms(50), "latency_p95_ms": self.latency_ms(95)}
        return asdict(self) | self.means | times


def evaluate_rankings(
    reranker: Reranker,
    rankings: Sequence[Ranking],
    *,
    length_config: str | LengthConfig | Sequence[float] | None = None,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> RankingEvaluation:
    """Rank the documents of each query and measure the orders; the first query also runs once before, untimed.

    Args:
        reranker: The reranker.
        rankings: Queries with their documents.
        length_config: Which tokens each layer keeps; None for the model's default.
        batch_size: Windows of a query to run at once.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        DataError: There are no rankings, or a query or a document cannot be read by the model; raised before any is
            run, and the message names the ranking.
        LengthConfigError: The length configuration is unknown or does not fit the model.
    """
    if not rankings:
        raise DataError("there are no rankings to evaluate")
    check_rankings(reranker, rankings)
    orders, times = [], []
    _order(reranker, rankings[0], length_config, batch_size)  # compiles the graph, which counts towards no query's time
    for ranking in tqdm(rankings, unit="query", disable=None if progress else True):
        start = perf_counter()
        orders.append(_order(reranker, ranking, length_config, batch_size))
        times.append(1e3 * (perf_counter() - start))
    graded = [[own.grades[i] for i in order] for own, order in zip(rankings, orders, strict=True)]
    return RankingEvaluation(
        ids=tuple(ranking.id for ranking in rankings),
        orders=tuple(orders),
        query_ndcg=tuple(100 * ndcg(grades) for grades in graded),
        query_mrr=tuple(100 * reciprocal_rank(grades) for grades in graded),
        query_ms=tuple(times),
        query_documents=tuple(len(ranking.documents) for ranking in rankings),
    )


def check_rankings(reranker: Reranker, rankings: Iterable[Ranking]) -> None:
    """Raise DataError, which names the ranking, if the model cannot read a query or a document."""
    for ranking in rankings:
        try:
            reranker.check(ranking.query, ranking.documents)
        except InvalidInputError as error:
            raise DataError(f"ranking {ranking.id}: {error}") from error


def _order(
    reranker: Reranker, ranking: Ranking, length_config: str | LengthConfig | Sequence[float] | None, batch_size: int
) -> tuple[int, ...]:
    ranked = reranker.rank(ranking.query, ranking.documents, length_config=length_config, batch_size=batch_size)
    return tuple(own["corpus_id"] for own in ranked)
