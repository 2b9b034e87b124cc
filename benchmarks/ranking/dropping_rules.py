"""Which rule for dropping documents saves most at the same risk, and after how many layers?

    python -m benchmarks.ranking.dropping_rules RANKINGS.jsonl BUNDLE [--risk 0.01]

Whole groups of the rankings are dealt to three parts: heads are fitted on the first, margins chosen on the second (with
95 % confidence), and the rows measured on the third. The rules:

- fixed number: the documents with the highest early scores
- last early score: documents whose early score is within the margin of that in the last place
- best early score: within the margin of the best one, which is what the runtime does (`competition.py`)
- final scores, 8 at a time: the first places run to the end; then 8 documents at a time as long as their early score is
  within the margin of the final score in the last place

Columns: layers before the head (0: the match of words alone), the share of documents that leave, multiply-accumulates
as a share of those without dropping, and the share of relevance that is lost, with the 95 % interval by bootstrap over
the queries. `--words none` leaves out the match of words from heads after layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dynamic_tinybert.calibration.data import split_by_group
from dynamic_tinybert.calibration.documents.bound import largest_mean
from dynamic_tinybert.calibration.documents.head_fitting import fit_head, macs_share
from dynamic_tinybert.calibration.documents.lost_relevance import Relevance, smallest_margin
from dynamic_tinybert.calibration.documents.observed import Observed, Observer
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import BATCH_SIZE
from dynamic_tinybert.runtime.tasks.sequence_classification.competition import Scores, lags
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHead
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings

from benchmarks.common import argument_parser, measured_on, random_sample

_PARTS = (0.25, 0.7)
_STEP = 8

Rule = Callable[[Scores, Scores, int], npt.NDArray[np.float64]]
"""Given early scores, final scores and the number of places: for each document, the margin from which on it stays."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--length-config", default="full")
    parser.add_argument("--risk", type=float, default=0.01)
    parser.add_argument("--places", type=int, default=TOP)
    parser.add_argument("--queries", type=int, help="so many of them, by random")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--words", choices=("all", "none"), default="all")
    arguments = parser.parse_args()

    properties = {} if arguments.threads is None else {"INFERENCE_NUM_THREADS": arguments.threads}
    model = LengthAdaptiveModel.from_pretrained(arguments.bundle, ov_config=properties)
    observer = Observer(model, arguments.length_config)
    rankings = random_sample(read_rankings(arguments.data), arguments.queries)
    parts = split_by_group(rankings, _group_of, _PARTS, 0)
    print(measured_on())
    print(f"queries: {', '.join(map(str, map(len, parts)))}; risk {arguments.risk:.2%}, {arguments.places} places")
    fitting, bounding, reporting = (
        [own for own in _observed(observer, part) if len(own.final) > arguments.places] for part in parts
    )
    mean = largest_mean(len(bounding), arguments.risk)
    if mean is None:
        raise DataError(f"{len(bounding)} queries cannot bound a risk of {arguments.risk:g}; give more of them")
    print("| layers before | rule | documents that leave | MACs | relevance lost |")
    print("| ---: | --- | ---: | ---: | ---: |")
    if arguments.words == "none":
        fitting, bounding, reporting = (
            [replace(own, match=np.zeros_like(own.match)) for own in part] for part in (fitting, bounding, reporting)
        )
    for layers in (0, *fitting[0].states) if arguments.words == "all" else fitting[0].states:
        head = fit_head(fitting, layers)
        for name, rule in RULES.items():
            figures = _figures(rule, head, bounding, reporting, arguments.places, mean)
            print(f"| {layers} | {name} | {figures} |", flush=True)


def fixed_number(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    order = np.argsort(-early, kind="stable")
    result = np.full(len(early), -np.inf)
    result[order[places:]] = np.arange(places, len(early)) / len(early)  # lists differ in length
    return result


def last_early_score(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    order = np.argsort(-early, kind="stable")
    result = float(early[order[places - 1]]) - early.astype(np.float64)
    result[order[:places]] = -np.inf
    return result


def best_early_score(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    return lags(early, places)


def final_scores(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    order = np.argsort(-early, kind="stable")
    result = np.full(len(early), -np.inf)
    for first in range(places, len(early), _STEP):
        bar = np.sort(final[order[:first]])[::-1][places - 1]
        behind = order[first : first + _STEP]
        result[behind] = float(bar) - early[behind].astype(np.float64)
    return result


RULES: Mapping[str, Rule] = {
    "fixed number": fixed_number,
    "last early score": last_early_score,
    "best early score": best_early_score,
    "final scores, 8 at a time": final_scores,
}


def _group_of(ranking: Ranking) -> str:
    return ranking.group or ranking.query


def _observed(observer: Observer, rankings: Sequence[Ranking]) -> list[Observed]:
    return [observer(ranking, batch_size=BATCH_SIZE) for ranking in tqdm(rankings, unit="query", disable=None)]


def _figures(
    rule: Rule, head: EarlyHead, bounding: Sequence[Observed], reporting: Sequence[Observed], places: int, mean: float
) -> str:
    behind = [rule(own.early(head), own.final, places) for own in bounding]
    margin = smallest_margin(behind, [Relevance.of(own, places) for own in bounding], mean)
    left, macs, lost = [], [], []
    for own in reporting:
        stay = rule(own.early(head), own.final, places) <= margin
        left.append(1 - stay.mean())
        macs.append(macs_share(own, head.layers, stay))
        lost.append(Relevance.of(own, places).lost(stay))
    found, low, high = paired_bootstrap(lost, np.zeros(len(lost)))
    return f"{np.mean(left):.1%} | {np.mean(macs):.3f}x | {found:.2%} [{low:.2%}, {high:.2%}]"


if __name__ == "__main__":
    main()
