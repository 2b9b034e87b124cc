"""What dropping documents saves and changes, on rankings that nothing was chosen on.

    python -m benchmarks.ranking.dropped_documents RANKINGS.jsonl BUNDLE [--length-configs full balanced]

BUNDLE was calibrated on other rankings (`dynamic-tinybert calibrate BUNDLE --data RANKINGS.jsonl`). Each query is
ranked with all documents and with those that are not dropped, in turn. The columns: the risk that the margin is for;
the share of documents that leave early; multiply-accumulates of a query and its median time, as a share of those
without dropping; p50 and p95 of a query; the share of the relevance in the first places that is lost, with the 95 %
interval by bootstrap over the queries, and over their groups; nDCG@10, and its difference with the 95 % interval by
paired bootstrap over the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.calibration.documents.head_fitting import kept, macs_share
from dynamic_tinybert.calibration.documents.lost_relevance import Relevance
from dynamic_tinybert.calibration.documents.observed import Observer
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import BATCH_SIZE
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHeads, early_heads_of
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP, ndcg
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import Reranker

from benchmarks.common import argument_parser, mean_change, measured_on, random_sample

_COLUMNS = (
    "configuration",
    "layers before",
    "risk",
    "documents that leave",
    "MACs",
    "time",
    "p50 / p95 ms, all",
    "p50 / p95 ms, dropping",
    "relevance lost",
    "interval over groups",
    f"nDCG@{TOP}",
    "against all documents",
)


@dataclass(frozen=True)
class Measured:
    """One value for each query.

    Attributes:
        left: Share of its documents that left early.
        macs: Multiply-accumulates, as a share of those without dropping.
        ms: Milliseconds with all documents, and with those that are not dropped.
        lost: Share of the relevance in its first places that was lost.
        groups: Its group.
        ndcg: nDCG in percent with all documents, and with those that are not dropped.
    """

    left: Sequence[float]
    macs: Sequence[float]
    ms: tuple[Sequence[float], Sequence[float]]
    lost: Sequence[float]
    groups: Sequence[str]
    ndcg: tuple[Sequence[float], Sequence[float]]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path, help="rankings that neither heads nor margins come from")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--length-configs", nargs="+", help="by default all that drop documents")
    parser.add_argument("--queries", type=int, help="so many of them, by random")
    parser.add_argument("--top-n", type=int, default=TOP)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()

    rankings = random_sample(read_rankings(arguments.data), arguments.queries)
    reranker = Reranker.from_pretrained(arguments.bundle, num_threads=arguments.threads)
    heads = early_heads_of(reranker.model.bundle)
    if heads is None:
        raise InvalidInputError(f"{arguments.bundle} drops no documents; calibrate it on rankings first")
    print(measured_on())
    print(
        f"{len(rankings)} queries of {arguments.data.name}, first {arguments.top_n} places; margins from "
        f"{heads.queries} queries of {heads.data}"
    )
    print(f"| {' | '.join(_COLUMNS)} |")
    print("| --- |" + " ---: |" * (len(_COLUMNS) - 1))
    for name in arguments.length_configs or heads.heads:
        print(row(name, heads, measure(reranker, heads, name, rankings, arguments.top_n)), flush=True)


def measure(reranker: Reranker, heads: EarlyHeads, name: str, rankings: Sequence[Ranking], top_n: int) -> Measured:
    if name not in heads.heads:
        raise InvalidInputError(f"the bundle drops no documents at {name!r}, only at {', '.join(heads.heads)}")
    head = heads.heads[name]
    places = head.places(top_n)
    if places is None:
        raise InvalidInputError(f"there is no margin for {top_n} places, only for {', '.join(map(str, head.margins))}")
    observer = Observer(reranker.model, name)
    left, macs, lost = [], [], []
    times: tuple[list[float], list[float]] = ([], [])
    gains: tuple[list[float], list[float]] = ([], [])
    for drop in (False, True):  # compiles the graphs
        reranker.rank(rankings[0].query, rankings[0].documents, top_n, length_config=name, drop_documents=drop)
    for number, ranking in enumerate(tqdm(rankings, unit="query", disable=None)):
        seen = observer(ranking, batch_size=BATCH_SIZE)
        stay = kept(seen, head, places, head.margins[places])
        left.append(1 - float(stay.mean()))
        lost.append(Relevance.of(seen, top_n).lost(stay))
        macs.append(macs_share(seen, head.layers, stay))
        for drop in (bool(number % 2), not number % 2):
            start = perf_counter()
            found = reranker.rank(ranking.query, ranking.documents, top_n, length_config=name, drop_documents=drop)
            times[drop].append(1e3 * (perf_counter() - start))
            gains[drop].append(100 * ndcg_of(ranking, [own["corpus_id"] for own in found]))
    return Measured(left, macs, times, lost, [ranking.group or ranking.query for ranking in rankings], gains)


def ndcg_of(ranking: Ranking, top: Sequence[int]) -> float:
    """nDCG of the first places; documents that were not returned count as ranked behind place `TOP`."""
    others = [grade for i, grade in enumerate(ranking.grades) if i not in top]
    return ndcg([*(ranking.grades[i] for i in top), *[0.0] * max(0, TOP - len(top)), *others])


def row(name: str, heads: EarlyHeads, measured: Measured) -> str:
    (all_p50, all_p95), (p50, p95) = (np.percentile(own, [50, 95]) for own in measured.ms)
    none = [0.0] * len(measured.lost)
    mean, low, high = paired_bootstrap(measured.lost, none)
    over_groups = "-"
    if len(set(measured.groups)) > 1:
        _, low_groups, high_groups = paired_bootstrap(measured.lost, none, clusters=measured.groups)
        over_groups = f"[{low_groups:.2%}, {high_groups:.2%}]"
    cells = (
        name,
        str(heads.heads[name].layers),
        f"{heads.heads[name].risk:.2%}",
        f"{fmean(measured.left):.1%}",
        f"{fmean(measured.macs):.3f}x",
        f"{p50 / all_p50:.3f}x",
        f"{all_p50:.0f} / {all_p95:.0f}",
        f"{p50:.0f} / {p95:.0f}",
        f"{mean:.2%} [{low:.2%}, {high:.2%}]",
        over_groups,
        f"{fmean(measured.ndcg[1]):.2f}",
        mean_change(measured.ndcg[1], measured.ndcg[0]),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
