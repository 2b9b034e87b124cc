"""F1 at equal shares of two bundles of the same model whose scorers differ: what the scorers alone are worth.

    python benchmarks/compared_scorers.py BEFORE AFTER DATA [QUESTIONS]

DATA is a folder with squad-style-train.json, from which both take their thresholds, and squad-search.json. FP32 bundles
say most, and run on any CPU; INT8 needs VNNI.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dynamic_tinybert.calibration.fitting import sample_significance
from dynamic_tinybert.calibration.schedules import Schedule
from dynamic_tinybert.calibration.scorer import load_scorers
from dynamic_tinybert.calibration.thresholds import SignificanceSample
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.bundle import open_bundle
from dynamic_tinybert.runtime.evaluation import Evaluation, evaluate
from dynamic_tinybert.runtime.squad import read_squad

SHARES = ({0: 0.46, 3: 0.19}, {0: 0.38, 3: 0.19})
"""By selecting layer, around 2.6 and 2.9 times fewer MACs; nothing is chosen by what comes out."""


def main(before: Path, after: Path, data: Path, questions: int | None = None) -> None:
    """Print a row for each bundle and schedule."""
    scored = read_squad(data / "squad-search.json", require_answers=True)[:questions]
    fitted_on = read_squad(data / "squad-style-train.json")
    print("| Bundle | Shares | MACs, x fewer | F1 | against `full` | against before |")
    print("| --- | --- | ---: | ---: | --- | --- |")
    full: Evaluation | None = None
    first: dict[int, Evaluation] = {}
    for name, folder in (("before", before), ("after", after)):
        bundle = open_bundle(folder)
        if bundle.scorers is None:
            raise SystemExit(f"{folder} has no scorers")
        significance = sample_significance(bundle, fitted_on, load_scorers(bundle.scorers), seed=0)
        sample = SignificanceSample(significance, bundle.shape.num_layers)
        model = LengthAdaptiveModel.from_pretrained(folder, num_threads=2)
        full = full or evaluate(model, scored, length_config="full", batch_size=8)
        for k, shares in enumerate(SHARES):
            schedule = Schedule.of_layers(bundle.shape.num_layers, shares)
            own = evaluate(model, scored, length_config=sample.length_config(schedule), batch_size=8)
            first.setdefault(k, own)
            differences = (paired_bootstrap(own.question_f1, other.question_f1) for other in (full, first[k]))
            cells = [
                name,
                ", ".join(f"{layer}: {share}" for layer, share in shares.items()),
                f"{full.mean_macs / own.mean_macs:.2f}",
                f"{own.f1:.2f}",
                *("{:+.2f} [{:+.2f}, {:+.2f}]".format(*difference) for difference in differences),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:]))
