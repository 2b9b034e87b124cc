"""What training gains: F1 against MACs of several bundles, such as those of a checkpoint before and after it.

    python -m benchmarks.selection.trained_front DATA BUNDLE [BUNDLE ...] [--questions 500] [--costs 1.5 1.8 …]

For each cost, schedules that should have this cost are tried on questions of DATA/squad-search.json, with thresholds
from questions of DATA/squad-style-train.json. The best schedule, by the score that calibration uses, is measured on
DATA/squad-report.json. Costs are executed multiply-accumulates of unpadded inputs, scorers included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dynamic_tinybert.calibration.search.latency import spread
from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.fitting import sample_significance
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.modeling.scorer import load_scorers
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.encoder.scorer import macs_per_token, ruled_layers
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.length_config import executed_macs
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.evaluation_result import Evaluation
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.gold_answers import gold_answers
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, mean_change

SELECTING = ((1, 3), (0, 3), (0, 1, 3))
LAST_SHARES = (0.19, 0.24, 0.3)
BATCH = 8


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument(
        "--costs", type=float, nargs="+", default=[1.5, 1.8, 2.1, 2.4, 2.65, 3.0], help="times fewer MACs than `full`"
    )
    arguments = parser.parse_args()
    sample, search, report = (
        read_squad(arguments.data / f"squad-{name}.json") for name in ("style-train", "search", "report")
    )
    search = spread(search, arguments.questions)
    print(f"{len(report)} questions of squad-report.json, chosen on {len(search)} of squad-search.json, {cpu.name()}")
    print("| Bundle | Selecting layers, shares | MACs, x fewer | F1 | against own `full` | against the first one's |")
    print("| --- | --- | ---: | ---: | --- | --- |")
    first: Evaluation | None = None
    for folder in arguments.bundles:
        name = Path(folder).name
        bundle = open_bundle(folder)
        model = LengthAdaptiveModel(bundle, elastic=True)
        full = evaluate(model, report, length_config="full", batch_size=BATCH)
        first = first or full
        print_row(name, "full", full, full, first)
        for what, config in chosen(bundle, model, sample, search, arguments.costs):
            print_row(name, what, evaluate(model, report, length_config=config, batch_size=BATCH), full, first)


def chosen(
    bundle: Bundle,
    model: LengthAdaptiveModel,
    sample: list[Example],
    search: list[Example],
    costs: list[float],
) -> Iterator[tuple[str, LengthConfig]]:
    """For each cost, the best configuration on the questions to search on, after its description."""
    assert bundle.scorers is not None
    num_layers = bundle.shape.num_layers
    rule_layer = next(iter(ruled_layers(load_scorer_tensors(bundle.scorers))), None)
    significance = sample_significance(bundle, sample, load_scorers(bundle.scorers), seed=0)
    thresholds = SignificanceSample(significance, num_layers, rule_layer=rule_layer)
    choosing = gold_answers(model, search, to_choose=True)
    length = round(evaluate(model, search, length_config="full", batch_size=BATCH).mean_length)
    for cost in costs:
        tried = []
        for schedule in schedules_of(bundle, length, cost):
            config = thresholds.length_config(schedule)
            result = choosing.evaluate(model, config, batch_size=BATCH)
            tried.append((result.f1, schedule, config))
        if not tried:
            continue  # no schedule has this cost
        _, schedule, config = max(tried, key=lambda one: one[0])
        fallen = zip(schedule.shares, (1.0, *schedule.shares), strict=False)
        yield ", ".join(f"{i}: {share:.2f}" for i, (share, above) in enumerate(fallen) if share < above), config


def schedules_of(bundle: Bundle, length: int, cost: float) -> Iterator[Schedule]:
    """Schedules with evenly falling shares at which an input of `length` needs `cost` times fewer MACs than `full`."""
    assert bundle.scorers is not None
    layers = bundle.shape.num_layers
    scorer_macs = {layer: macs_per_token(weights) for layer, weights in load_scorer_tensors(bundle.scorers).items()}
    full = executed_macs(bundle.shape, length, [length] * layers, [None] * layers, {})
    for selecting in SELECTING:
        asked = ["learnt" if layer in selecting else None for layer in range(layers)]
        for last in LAST_SHARES:
            found = []
            for start in np.arange(last, 0.96, 0.01):
                shares = np.geomspace(start, last, len(selecting)).tolist()
                schedule = Schedule.of_layers(layers, dict(zip(selecting, shares, strict=True)))
                kept = [round(share * length) for share in schedule.shares]
                found.append(
                    (abs(full / executed_macs(bundle.shape, length, kept, asked, scorer_macs) - cost), schedule)
                )
            distance, schedule = min(found, key=lambda one: one[0])
            if distance < 0.05:
                yield schedule


def print_row(name: str, what: str, result: Evaluation, full: Evaluation, before: Evaluation) -> None:
    own, old = (mean_change(result.question_f1, other.question_f1) for other in (full, before))
    fewer = full.mean_macs / result.mean_macs
    print(f"| {name} | {what} | {fewer:.2f} | {result.f1:.2f} | {own} | {old} |", flush=True)


if __name__ == "__main__":
    main()
