"""What each part of the design of scorers gains: F1 at equal MACs.

    python -m benchmarks.selection.significance_ablation BUNDLE DATA [QUESTIONS]

Fits all variants side by side in three layers, on the same windows in the same order, from QUESTIONS (by default 6000)
of DATA/squad-style-train.json, without their answers, and evaluates each at two schedules on DATA/squad-search.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.fitting import (
    LEARNING_RATE,
    RECENT,
    REPLAYS,
    Batch,
    judge,
    losses,
)
from dynamic_tinybert.calibration.significance.teacher import ScorerExamples, ScorerTeacher
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.calibration.significance.windows import batches_by_length, compact_windows
from dynamic_tinybert.modeling import Scorer, save_scorers
from dynamic_tinybert.modeling.scorer_passes import draw_shares
from dynamic_tinybert.modeling.scorer_targets import WEIGHT_OF_KEPT, TrainedScorer
from dynamic_tinybert.modeling.tasks.question_answering import OUTPUTS, WIDENED_BY, near_answer
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.evaluation_result import Evaluation
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, mean_change, random_sample

LAYERS = (0, 1, 3)
SCHEDULES = (Schedule((0.7, 0.45, 0.45, 0.3, 0.3, 0.3)), Schedule((0.6, 0.35, 0.35, 0.2, 0.2, 0.2)))


@dataclass(frozen=True)
class Variant:
    name: str
    width: int = 64
    kernel_sizes: tuple[int, ...] = (9, 17, 65, 65)
    heads: int = 4
    head_size: int = 32
    begins_alike: bool = True
    compares: bool = True
    sees_context: bool = True
    widened_by: int = WIDENED_BY
    weight_of_kept: float = WEIGHT_OF_KEPT
    early_target: Literal["both", "answer", "importance"] = "both"
    drops: bool = True
    replays: int = REPLAYS
    first_part: float = 1.0  # share of the questions to fit on


BASE = Variant("as shipped")
VARIANTS = (
    BASE,
    replace(BASE, name="a quarter of the questions", first_part=0.25),
    replace(BASE, name="no replays", replays=0),
    replace(BASE, name="four replays", replays=4),
    replace(BASE, name="no passes that drop", drops=False),
    replace(BASE, name="early scorers learn where the answer is", early_target="answer"),
    replace(BASE, name="early scorers learn token importance alone", early_target="importance"),
    replace(BASE, name="no comparison with the question", compares=False),
    replace(BASE, name="words of the question not found from the start", begins_alike=False),
    replace(BASE, name="compared in 16 heads of 4", heads=16, head_size=4),
    replace(BASE, name="compared in 8 heads of 16", heads=8, head_size=16),
    replace(BASE, name="compared in 8 heads of 32", heads=8),
    replace(BASE, name="no view of the whole context", sees_context=False),
    replace(BASE, name="no neighbours, no context", kernel_sizes=()),
    replace(BASE, name="one convolution of 9", kernel_sizes=(9,)),
    replace(BASE, name="convolutions of 9, 17 and 65", kernel_sizes=(9, 17, 65)),
    *(replace(BASE, name=f"target widened by {width}", widened_by=width) for width in (1, 3, 4, 6, 8)),
    replace(BASE, name="tokens to keep weigh 1", weight_of_kept=1.0),
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("questions", nargs="?", type=int, default=6000)
    parser.add_argument("--held-out", type=int, default=400, help="number of these questions that are not fitted on")
    parser.add_argument("--variants", nargs="+", help="names; by default all", metavar="VARIANT")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    variants = [variant for variant in VARIANTS if variant.name in (arguments.variants or [variant.name])]
    chosen = random_sample(read_squad(arguments.data / "squad-style-train.json"), arguments.questions)
    held_out_questions = chosen[: arguments.held_out]
    fitted = fit(bundle, chosen[arguments.held_out :], variants)
    examples = read_squad(arguments.data / "squad-search.json", require_answers=True)
    full = evaluate(LengthAdaptiveModel(bundle), examples, length_config="full", batch_size=8)
    print(f"{len(chosen)} questions fitted on, {len(examples)} evaluated, full F1 {full.f1:.2f}, {cpu.name()}")
    print("| Variant | milder schedule | harder schedule | losses of the layers |")
    print("| --- | --- | --- | --- |", flush=True)
    for variant, scorers in fitted.items():
        sample, held_out = judged(bundle, held_out_questions, scorers)
        results = [at(bundle, scorers, sample.length_config(schedule), examples) for schedule in SCHEDULES]
        found = " | ".join(against(result, full) for result in results)
        print(f"| {variant.name} | {found} | {held_out} |", flush=True)


def scorer(hidden_size: int, variant: Variant) -> Scorer:
    plain = Scorer(hidden_size, variant.width, variant.kernel_sizes, heads=variant.heads, head_size=variant.head_size)
    made = TrainedScorer(plain)
    if not variant.begins_alike:
        made.match_question.reset_parameters()
        made.match_token.reset_parameters()
    without = [] if variant.compares else [made.match]
    if not variant.sees_context and made.pool is not None:
        without.append(made.pool)
    for part in without:
        torch.nn.init.zeros_(part.weight)
        part.weight.requires_grad_(False)
    return made


def fit(bundle: Bundle, examples: Sequence[Example], variants: Sequence[Variant]) -> dict[Variant, dict[int, Scorer]]:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    fitted = {v: {layer: scorer(bundle.shape.hidden_size, v) for layer in LAYERS} for v in variants}
    optimizers = {
        v: torch.optim.AdamW([p for s in scorers.values() for p in s.parameters()], LEARNING_RATE)
        for v, scorers in fitted.items()
    }
    teacher = ScorerTeacher(bundle, LAYERS)
    batches = batches_by_length(compact_windows(measure_of(bundle), examples))
    recent: dict[Variant, list[Batch]] = {variant: [] for variant in variants}
    for step, index in enumerate(tqdm(random.permutation(len(batches)), disable=None)):
        batch, shares = Batch.of(teacher, batches[index]), draw_shares(LAYERS, random)
        again = random.integers(RECENT, size=max(variant.replays for variant in variants))
        for variant, optimizer in optimizers.items():
            done = step / (variant.first_part * len(batches))
            if done >= 1:
                continue
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1, (step + 1) / 20) * (1 - done)
            own = replace(batch, full=targets_of(variant, batch))
            if variant.drops:
                own = own.with_dropped(teacher, fitted[variant], shares)
            kept = recent[variant] = [*recent[variant][1 - RECENT :], own]
            for chosen in (own, *(kept[i % len(kept)] for i in again[: variant.replays])):
                optimizer.zero_grad()
                torch.stack(list(losses(fitted[variant], chosen).values())).sum().backward()
                optimizer.step()
    return fitted


def targets_of(variant: Variant, batch: Batch) -> dict[int, ScorerExamples]:
    """What scorers of a variant learn from a pass that keeps everything, given what those as shipped learn."""
    start, end = (torch.from_numpy(batch.states.outputs[name]) for name in OUTPUTS)
    droppable = torch.from_numpy(batch.states.real - batch.states.protected)
    shipped, own = (near_answer(start, end, droppable, width) for width in (WIDENED_BY, variant.widened_by))
    found = {}
    for layer, examples in batch.full.items():
        if examples.weight_of_kept != 1 or variant.early_target == "answer":
            found[layer] = replace(examples, keep=own, weight_of_kept=variant.weight_of_kept)
        else:
            importance = 2 * examples.keep - shipped
            keep = importance if variant.early_target == "importance" else (own + importance) / 2
            found[layer] = replace(examples, keep=keep)
    return found


def judged(
    bundle: Bundle, examples: Sequence[Example], scorers: Mapping[int, Scorer]
) -> tuple[SignificanceSample, str]:
    """The sample to take thresholds from, and the held-out loss of each layer with the shipped targets."""
    teacher = ScorerTeacher(bundle, tuple(scorers))
    batches = batches_by_length(compact_windows(measure_of(bundle), examples))
    found = [judge(scorers, *teacher.full(windows)) for windows in batches]
    values = {layer: np.concatenate([of_batch[layer] for of_batch, _ in found]) for layer in scorers}
    held_out = [f"{np.mean([of_batch[layer] for _, of_batch in found]):.3f}" for layer in scorers]
    return SignificanceSample(values, bundle.shape.num_layers), " ".join(held_out)


def at(bundle: Bundle, scorers: Mapping[int, Scorer], config: LengthConfig, examples: Sequence[Example]) -> Evaluation:
    with TemporaryDirectory() as place:
        save_scorers(scorers, Path(place, "scorers"))
        folder = Path(place, "bundle")
        folder.mkdir()
        full = {"full": NamedLengthConfig(LengthConfig.full(bundle.shape.num_layers))}
        write_recalibrated(bundle, folder, Path(place, "scorers"), full)
        result = evaluate(LengthAdaptiveModel.from_pretrained(folder), examples, length_config=config, batch_size=8)
        shutil.rmtree(folder)
    return result


def against(result: Evaluation, full: Evaluation) -> str:
    return f"{full.mean_macs / result.mean_macs:.2f}x {mean_change(result.question_f1, full.question_f1)}"


if __name__ == "__main__":
    main()
