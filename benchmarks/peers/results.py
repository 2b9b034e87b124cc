"""From measurements to figures: scores, percentiles, ratios, shares of the CPU's limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.length_config import executed_macs
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1
from dynamic_tinybert.runtime.tasks.windows import Window

from .measuring import WARM_UP, Measurement
from .systems import System
from .turns import Interval, ratio_of_blocks
from benchmarks.kernels.cpu_limits import CpuLimits


@dataclass(frozen=True)
class Figures:
    """The figures of one system; times are of a question.

    Attributes:
        f1: F1 over all questions; None for random weights.
        f1_difference: F1 minus that of the reference system.
        p50_ms: Median time in the later passes, which `p95_ms`, `mean_ms` and `questions_per_second` are of, too.
        ratio: The time divided by that of the reference: median over the blocks.
        first_visit_p50_ms: Median time, in the first pass, of the questions with a length that none before them had.
        resident_mib: Resident memory after all passes.
        cold_start: Seconds from process start to the first answer.
        warm_start: The same if an earlier process has cached its compiled graphs.
        limit_share: The least time in which this CPU could do the multiply-accumulates, divided by the actual time.
    """

    f1: float | None
    f1_difference: Interval | None
    p50_ms: float
    p95_ms: float
    mean_ms: float
    questions_per_second: float
    ratio: Interval
    first_visit_p50_ms: float
    resident_mib: float
    cold_start: float
    warm_start: float | None
    limit_share: float


def figures(
    systems: Sequence[System],
    measured: Mapping[str, Measurement],
    reference: str,
    examples: Sequence[Example],
    windows: Sequence[Sequence[Window]],
    limits: CpuLimits,
    block: int,
) -> dict[str, Figures]:
    """The figures of each system, by its name."""
    scores = {
        system.name: [
            f1(answer, example.answers) for answer, example in zip(measured[system.name].answers, examples, strict=True)
        ]
        for system in systems
        if system.scored
    }
    visits = _first_visits(windows)
    found = {}
    for system in systems:
        result, own = measured[system.name], scores.get(system.name)
        later = np.array(result.later)
        first_visits = [result.first_visit[i] for i in visits if i < len(result.first_visit)]
        p50, p95 = np.percentile(later, (50, 95))
        found[system.name] = Figures(
            f1=fmean(own) if own else None,
            f1_difference=paired_bootstrap(own, scores[reference]) if own else None,
            p50_ms=1000 * float(p50),
            p95_ms=1000 * float(p95),
            mean_ms=1000 * float(later.mean()),
            questions_per_second=1 / float(later.mean()),
            ratio=ratio_of_blocks(later, np.array(measured[reference].later), block),
            first_visit_p50_ms=1000 * float(np.median(first_visits)),
            resident_mib=result.resident_bytes / 2**20,
            cold_start=median(result.cold_start),
            warm_start=median(result.warm_start) if result.warm_start else None,
            limit_share=_least_seconds(system, result, windows, limits) / float(later.mean()),
        )
    return found


def _first_visits(windows: Sequence[Sequence[Window]]) -> list[int]:
    """The questions that have a window of a length which no question before them had."""
    visits = []
    seen = {len(window) for own in windows[:WARM_UP] for window in own}
    for number, own in enumerate(windows[WARM_UP:], WARM_UP):
        lengths = {len(window) for window in own}
        if not lengths <= seen:
            visits.append(number)
        seen |= lengths
    return visits


def _least_seconds(
    system: System, result: Measurement, windows: Sequence[Sequence[Window]], limits: CpuLimits
) -> float:
    """The least mean time of a timed question: attention in FP32, all other matmuls in the system's precision."""
    model = LengthAdaptiveModel.from_pretrained(system.options["bundle"]) if system.length_config else None
    shape = system.shape
    timed = len(result.later[0])
    total = 0.0
    for own, counts_of in zip(windows[:timed], result.kept[:timed], strict=True):
        for window, counts in zip(own, counts_of, strict=True):
            length = max(len(window), system.pad_to)
            kept: list[int] = []
            for layer in range(shape.num_layers):
                kept.append(counts.get(str(layer), kept[-1] if kept else length))
            if model:
                macs = model.executed_macs(system.length_config, length, kept)
            else:
                macs = executed_macs(shape, length, kept, [None] * shape.num_layers, {})
            attention = sum(2 * n * n * shape.hidden_size for n in (length, *kept[:-1]))
            total += limits.seconds(macs - attention, attention) if system.int8 else limits.seconds(0, macs)
    return total / timed
