"""Which rule for dropping documents saves most at the same risk?

    python -m benchmarks.ranking.dropping_rules RANKINGS.jsonl BUNDLE [--risk 0.01]

Whole groups of the rankings are dealt to three parts: heads are fitted on the first, margins chosen on the second (with
95 % confidence), and the rows measured on the third. The rules:

- first places: a fixed number of documents, those with the highest early scores
- early bar: documents whose early score is within the margin of that in the last place
- final bar, 2 looks: the first places run, then all documents within the margin of the last of them
- final bar, 8 at a time: what the runtime does (`competition.py`)

Columns: layers before the head, the share of documents that leave, multiply-accumulates as a share of those without
dropping, and the queries whose first places changed, with the 95 % interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dynamic_tinybert.calibration.data import split_by_group
from dynamic_tinybert.calibration.documents.bound import interval, margin_of
from dynamic_tinybert.calibration.documents.head_fitting import FOCUSES, HeadChoice, fit_head
from dynamic_tinybert.calibration.documents.observed import Observed, Observer
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import BATCH_SIZE
from dynamic_tinybert.runtime.tasks.sequence_classification.competition import Scores, lags, promising_first
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHead
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings

from benchmarks.common import argument_parser, measured_on, random_sample

_PARTS = (0.25, 0.7)
_RIDGE = 1e-2

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
    arguments = parser.parse_args()

    properties = {} if arguments.threads is None else {"INFERENCE_NUM_THREADS": arguments.threads}
    model = LengthAdaptiveModel.from_pretrained(arguments.bundle, ov_config=properties)
    observer = Observer(model, arguments.length_config)
    rankings = random_sample(read_rankings(arguments.data, judged=False), arguments.queries)
    parts = split_by_group(rankings, _group_of, _PARTS, 0)
    print(measured_on())
    print(f"queries: {', '.join(map(str, map(len, parts)))}; risk {arguments.risk:.2%}, {arguments.places} places")
    fitting, bounding, reporting = (
        [own for own in _observed(observer, part) if len(own.final) > arguments.places] for part in parts
    )
    print("| layers before | focus | rule | documents that leave | MACs | queries changed |")
    print("| ---: | ---: | --- | ---: | ---: | ---: |")
    for layers in fitting[0].states:
        for focus in FOCUSES:
            head = fit_head(fitting, HeadChoice(layers, _RIDGE, focus), arguments.places)
            for name, rule in RULES.items():
                figures = _figures(rule, head, bounding, reporting, arguments.places, arguments.risk)
                print(f"| {layers} | {focus:g} | {name} | {figures} |", flush=True)


def first_places(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    order = promising_first(early)
    result = np.full(len(early), -np.inf)
    result[order[places:]] = np.arange(places, len(early)) / len(early)  # lists differ in length
    return result


def early_bar(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    order = promising_first(early)
    result = float(early[order[places - 1]]) - early.astype(np.float64)
    result[order[:places]] = -np.inf
    return result


def two_looks(early: Scores, final: Scores, places: int) -> npt.NDArray[np.float64]:
    order = promising_first(early)
    result = float(final[order[:places]].min()) - early.astype(np.float64)
    result[order[:places]] = -np.inf
    return result


RULES: Mapping[str, Rule] = {
    "first places": first_places,
    "early bar": early_bar,
    "final bar, 2 looks": two_looks,
    "final bar, 8 at a time": lags,
}


def _group_of(ranking: Ranking) -> str:
    return ranking.group or ranking.query


def _observed(observer: Observer, rankings: Sequence[Ranking]) -> list[Observed]:
    return [observer(ranking, batch_size=BATCH_SIZE) for ranking in tqdm(rankings, unit="query", disable=None)]


def _needed(rule: Rule, early: Scores, final: Scores, places: int) -> float:
    """The smallest margin, at least 0, with which the first places stay."""
    best = np.argsort(-final, kind="stable")[:places]
    return max(0.0, float(rule(early, final, places)[best].max()))


def _figures(
    rule: Rule, head: EarlyHead, bounding: Sequence[Observed], reporting: Sequence[Observed], places: int, risk: float
) -> str:
    margin = margin_of([_needed(rule, own.early(head), own.final, places) for own in bounding], risk)
    left, macs, changed = [], [], 0
    for own in reporting:
        early = own.early(head)
        stay = rule(early, own.final, places) <= margin
        before, every = own.macs[head.layers - 1], own.macs[-1]
        left.append(1 - stay.mean())
        macs.append((before.sum() + (every - before)[stay].sum()) / every.sum())
        changed += _needed(rule, early, own.final, places) > margin
    low, high = interval(changed, len(reporting))
    return f"{np.mean(left):.1%} | {np.mean(macs):.3f}x | {changed / len(reporting):.2%} [{low:.2%}, {high:.2%}]"


if __name__ == "__main__":
    main()
