"""How well do the scorers of bundles know what their model needs? Held-out losses, beside the least possible ones.

    python -m benchmarks.selection.scorer_losses DATA.json BUNDLE [BUNDLE ...] [--questions 64]

The targets are those that `calibrate` fits scorers to; answers in DATA.json are not used. All bundles must have the
graph of the first one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import torch

from dynamic_tinybert.calibration.search.latency import spread
from dynamic_tinybert.calibration.significance.fitting import judge
from dynamic_tinybert.calibration.significance.teacher import ScorerExamples, ScorerTeacher
from dynamic_tinybert.calibration.significance.windows import batches_by_length, compact_windows
from dynamic_tinybert.modeling.scorer import load_scorers
from dynamic_tinybert.modeling.scorer_targets import token_loss
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path, metavar="DATA.json")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--questions", type=int, default=64)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundles[0])
    layers = range(max(1, bundle.shape.num_layers - 2))
    teacher = ScorerTeacher(bundle, layers)
    examples = spread(read_squad(arguments.data), arguments.questions)
    windows = compact_windows(measure_of(bundle), examples)
    batches = [teacher.full(batch) for batch in batches_by_length(windows)]
    print(f"{len(windows)} windows of {arguments.data.name}, nothing dropped")
    print(f"| Scorers | {' | '.join(f'layer {layer}' for layer in layers)} |")
    print(f"| --- |{' ---: |' * len(layers)}", flush=True)
    for folder in arguments.bundles:
        path = open_bundle(folder).scorers
        if path is None:
            raise SystemExit(f"{folder} has no scorers")
        scorers = {layer: scorer for layer, scorer in load_scorers(path).items() if layer in layers}
        losses = [judge(scorers, states, {i: own[i] for i in scorers})[1] for states, own in batches]
        print_row(folder.name, {i: fmean(of_batch[i] for of_batch in losses) for i in scorers}, layers)
    print_row("least possible", {i: fmean(least(own[i]) for _, own in batches) for i in layers}, layers)


def least(examples: ScorerExamples) -> float:
    """The loss of a scorer that knows the targets: the weight of kept tokens moves what is best to give."""
    kept = examples.weight_of_kept * examples.keep
    best = kept / (kept + 1 - examples.keep).clamp(min=torch.finfo(torch.float32).tiny)
    return float(token_loss(best, examples.keep, examples.droppable, examples.weight_of_kept))


def print_row(name: str, losses: Mapping[int, float], layers: range) -> None:
    print(f"| {name} | {' | '.join(f'{losses[i]:.3f}' if i in losses else '' for i in layers)} |", flush=True)


if __name__ == "__main__":
    main()
