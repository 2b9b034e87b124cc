"""What ways to train selection gain: F1 at equal MACs after equal steps, beside fewer layers and shorter windows.

    python benchmarks/training_variants.py CHECKPOINT DATA FOLDER [STEPS]

Trains each variant for STEPS steps (by default 3000) of 16 windows on DATA/squad-style-train.json, and measures it on
DATA/squad-search.json. FOLDER keeps the models and what was measured; a run that was interrupted goes on from there.
Hours on a GPU, days on a few cores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from dynamic_tinybert.runtime.bootstrap import paired_bootstrap
from dynamic_tinybert.training import TrainingOptions, train
from dynamic_tinybert.training.measuring import Point
from dynamic_tinybert.training.plot import plot_fronts

COSTS = (1.5, 2.0, 2.6, 3.0)  # times fewer MACs than `full` of the checkpoint
FROZEN = 1e-12  # a learning rate with which nothing changes, but for scorers, which have their own

VARIANTS = {
    "fine-tuned only, attention": {"objective": "fine-tune"},
    "LengthDrop, attention": {"objective": "length-drop"},
    "scorers alone, model frozen": {"objective": "front", "learning_rate": FROZEN},
    "front": {"objective": "front"},
    "front, states distilled": {"objective": "front-states"},
    "straight-through, 2.0x": {"objective": "straight-through", "macs_fewer": 2.0},
    "straight-through, 2.6x": {"objective": "straight-through", "macs_fewer": 2.6},
    "soft masks, 2.0x": {"objective": "soft-masks", "macs_fewer": 2.0},
    "soft masks, 2.6x": {"objective": "soft-masks", "macs_fewer": 2.6},
    **{f"{n} layers": {"objective": "fine-tune", "num_layers": n} for n in (4, 3, 2)},
    **{f"{n} layers, distilled": {"objective": "distill-answers", "num_layers": n} for n in (4, 3, 2)},
    **{f"windows of {n}": {"objective": "fine-tune", "max_seq_len": n} for n in (192, 128, 96)},
}
ONE_COST = ("layers", "windows")  # variants that are compared by their `full`


def main(checkpoint: str, data: str, folder: str, steps: str = "3000") -> None:
    Path(folder).mkdir(exist_ok=True)
    measured: dict[str, list[Point]] = {}
    for name, variant in VARIANTS.items():
        before, after, minutes = trained(checkpoint, Path(data), Path(folder, name.replace(" ", "-")), steps, variant)
        measured.setdefault("before", before)  # the first variant has all layers and whole windows
        measured[name] = after[:1] if any(word in name for word in ONE_COST) else after
        print(f"{name}: {minutes:.1f} minutes", file=sys.stderr)
    full = measured["before"][0]
    print(f"{steps} steps of 16 windows; F1 on {len(full.question_f1)} questions of squad-search.json")
    print(f"| Variant | `full` | against before | {' | '.join(f'{cost}x' for cost in COSTS)} | own cost |")
    print(f"| --- | ---: | --- | {' | '.join('---:' for _ in COSTS)} | ---: |")
    for name, points in measured.items():
        change = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*paired_bootstrap(points[0].question_f1, full.question_f1))
        at_costs = " | ".join(f1_at(points, full.macs / cost) for cost in COSTS)
        own = f"{full.macs / points[0].macs:.2f}x" if len(points) == 1 else ""
        print(f"| {name} | {points[0].f1:.2f} | {change} | {at_costs} | {own} |")
    plot_fronts(measured, Path(folder, "variants.svg"))


def trained(
    checkpoint: str, data: Path, output: Path, steps: str, variant: dict[str, object]
) -> tuple[list[Point], list[Point], float]:
    """What a variant gives before and after, and the minutes that it took; from its file if it was trained before."""
    file = output.with_name(f"{output.name}.json")
    if not file.exists():
        started = perf_counter()
        result = train(
            checkpoint,
            output,
            data / "squad-style-train.json",
            options=TrainingOptions(max_steps=int(steps), batch_size=16, **variant),
            teacher=checkpoint if str(variant["objective"]).startswith("distill") else None,
            validation=data / "squad-search.json",
            resume=True,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        points = {
            when: [point.to_dict() for point in front]
            for when, front in (("before", result.before), ("after", result.after))
        }
        file.write_text(json.dumps({**points, "minutes": (perf_counter() - started) / 60}))
    found = json.loads(file.read_text())
    before, after = (list(map(Point.from_dict, found[when])) for when in ("before", "after"))
    return before, after, found["minutes"]


def f1_at(points: Sequence[Point], macs: float) -> str:
    """F1 at a cost, on the line between the points beside it."""
    ordered = sorted(points, key=lambda point: point.macs)
    costs = [point.macs for point in ordered]
    if not costs[0] <= macs <= costs[-1]:
        return ""
    return f"{np.interp(macs, costs, [point.f1 for point in ordered]):.2f}"


if __name__ == "__main__":
    main(*sys.argv[1:])
