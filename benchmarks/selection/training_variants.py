"""What each way of training selection gains: F1 at equal MACs after equally many steps, and that of smaller models.

    python -m benchmarks.selection.training_variants CHECKPOINT DATA FOLDER [STEPS [QUESTIONS [VARIANT ...]]]

Trains each VARIANT (by default all) for STEPS (3000) steps of 16 windows of DATA/squad-style-train.json, and measures
it on QUESTIONS (by default all) questions of DATA/squad-search.json. There is no dropout, which would take a fifth of
the time on a CPU. If CHECKPOINT has scorers, all variants that train scorers start from them. FOLDER keeps the models
and the measurements, from which an interrupted run continues.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from dynamic_tinybert.calibration.search.latency import spread
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.training import TrainingOptions, train
from dynamic_tinybert.training.front_meter import FrontMeter, Point
from dynamic_tinybert.training.plot import plot_fronts
from dynamic_tinybert.training.reference_runs import reference_of
from dynamic_tinybert.training.tasks import training_task_of

from benchmarks.common import argument_parser, mean_change

COSTS = (1.5, 2.0, 2.6, 3.0)  # times fewer MACs than `full` of the checkpoint
SLOWLY = 2e-5  # a short training does not recover from a higher learning rate

VARIANTS: dict[str, dict[str, object]] = {
    "fine-tuned only": {"objective": "fine-tune", "learning_rate": SLOWLY},
    "LengthDrop, attention": {"objective": "length-drop", "learning_rate": SLOWLY},
    "scorers alone, model frozen": {"objective": "scorers", "learning_rate": 3e-4},
    "front": {"objective": "front", "learning_rate": SLOWLY},
    "front, scorers' weight 0.1": {"objective": "front", "learning_rate": SLOWLY, "scorer_weight": 0.1},
    "straight-through, 2.0x": {"objective": "straight-through", "learning_rate": SLOWLY, "macs_fewer": 2.0},
    "straight-through, 2.6x": {"objective": "straight-through", "learning_rate": SLOWLY, "macs_fewer": 2.6},
    "soft masks, 2.0x": {"objective": "soft-masks", "learning_rate": SLOWLY, "macs_fewer": 2.0},
    "soft masks, 2.6x": {"objective": "soft-masks", "learning_rate": SLOWLY, "macs_fewer": 2.6},
    **{f"{n} layers": {"objective": "fine-tune", "num_layers": n} for n in (4, 3, 2)},
    **{f"{n} layers, distilled": {"objective": "distill-answers", "num_layers": n} for n in (4, 3, 2)},
    **{f"windows of {n}": {"objective": "fine-tune", "max_seq_len": n} for n in (192, 128, 96)},
}
ONE_COST = ("fine-tune", "distill-answers")  # objectives of variants that are compared by their `full`
SAMPLE = 256  # questions that thresholds are taken from


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="?", type=int, default=3000)
    parser.add_argument("questions", nargs="?", type=int)
    parser.add_argument("variants", nargs="*", metavar="VARIANT")
    arguments = parser.parse_args()
    checkpoint, data, folder, limit = arguments.checkpoint, arguments.data, arguments.folder, arguments.questions
    folder.mkdir(exist_ok=True)
    measured: dict[str, list[Point]] = {}
    for attention in (True, False):
        name = "before, attention" if attention else "before, scorers"
        measured[name] = front(checkpoint, data, folder / f"{name}.json", limit, attention=attention)
    for name in arguments.variants or VARIANTS:
        variant = VARIANTS[name]
        output = folder / name.replace(" ", "-")
        minutes = trained(checkpoint, data, output, arguments.steps, variant)
        one_cost = variant["objective"] in ONE_COST
        file = output.with_name(f"{output.name}.json")
        size = variant.get("max_seq_len")
        measured[name] = front(str(output), data, file, limit, max_seq_len=size, only_full=one_cost)
        print(f"{name}: {minutes:.1f} minutes", file=sys.stderr)
    full = measured["before, attention"][0]
    print(f"{arguments.steps} steps of 16 windows; F1 on {len(full.scores)} questions of squad-search.json")
    print(f"| Variant | `full` | against before | {' | '.join(f'{cost}x' for cost in COSTS)} | own cost |")
    print(f"| --- | ---: | --- | {' | '.join('---:' for _ in COSTS)} | ---: |")
    for name, points in measured.items():
        change = mean_change(points[0].scores, full.scores)
        at_costs = " | ".join(f1_at(points, full.macs / cost) for cost in COSTS)
        own = f"{full.macs / points[0].macs:.2f}x" if len(points) == 1 else ""
        print(f"| {name} | {points[0].f1:.2f} | {change} | {at_costs} | {own} |")
    plot_fronts(measured, folder / "variants.svg")


def trained(checkpoint: str, data: Path, output: Path, steps: int, variant: dict[str, object]) -> float:
    """Train a variant unless it was trained before; returns the minutes that it took, about 0 if it was."""
    started = perf_counter()
    if not output.exists():
        train(
            checkpoint,
            output,
            data / "squad-style-train.json",
            options=TrainingOptions(max_steps=steps, batch_size=16, dropout=0.0, **variant),
            teacher=checkpoint if str(variant["objective"]).startswith("distill") else None,
            resume=True,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    return (perf_counter() - started) / 60


def front(
    checkpoint: str,
    data: Path,
    file: Path,
    limit: int | None,
    *,
    attention: bool = False,
    max_seq_len: int | None = None,
    only_full: bool = False,
) -> list[Point]:
    """Measure a checkpoint with its scorers if it has any, or read the result from `file` if it was measured before."""
    if not file.exists():
        loaded = load_checkpoint(checkpoint)
        reference = reference_of(loaded.model, {} if attention else loaded.scorers)
        scored = read_squad(data / "squad-search.json", require_answers=True)
        scored = spread(scored, limit or len(scored))
        sample = spread(read_squad(data / "squad-style-train.json"), SAMPLE)
        config = loaded.model.config
        reader = training_task_of(loaded.model).reader(
            loaded.tokenizer, config, config.max_position_embeddings, max_seq_len
        )
        meter = FrontMeter(reader.scored_inputs(scored), reader.inputs(sample))
        if only_full:
            points = [meter.point(reference, "full", LengthConfig.full(loaded.model.config.num_hidden_layers))]
        else:
            points = meter.front(reference, every=1 if reference.significance == "attention" else 2)
        file.write_text(json.dumps([point.to_dict() for point in points]))
    return list(map(Point.from_dict, json.loads(file.read_text())))


def f1_at(points: Sequence[Point], macs: float) -> str:
    """F1 at a cost, interpolated linearly between the neighbouring points; empty outside their range."""
    ordered = sorted(points, key=lambda point: point.macs)
    costs = [point.macs for point in ordered]
    if not costs[0] <= macs <= costs[-1]:
        return ""
    return f"{np.interp(macs, costs, [point.f1 for point in ordered]):.2f}"


if __name__ == "__main__":
    main()
