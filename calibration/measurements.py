"""The measurements of a calibration: latencies before the search, trials in it, the front and the figures after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import monotonic
from typing import Any

import numpy as np

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.tasks.measure import Scored, Scoring

from .search.front import front
from .search.latency import measure_latency
from .search.latency_fitting import fit_latency_model
from .search.latency_model import LatencyModel
from .search.schedules import Schedule, ScheduleSpace
from .search.search import Progress
from .search.trial import Trial
from .time_needed import Measurement

COMPILED = 16
"""Number of configurations that a model keeps compiled."""

# The first layer that selects, and by how much the share falls there and in each later layer.
_RAMPS = ((0, 0.04), (0, 0.12), (1, 0.06), (1, 0.15), (1, 0.25), (2, 0.1), (2, 0.25), (3, 0.2), (4, 0.4), (5, 0.7))
_LEAST_SHARE = 0.1

RAMPS = Measurement(1 + len(_RAMPS), windows=48, repeats=3)
"""The times that the latency model is fitted to."""

FRONT = Measurement(COMPILED - 2, windows=96, repeats=8)
"""The times that decide which configurations get a name, by differences of a few per cent. All graphs, `full` and one
more included, fit into memory at once."""

_BATCH = 8
_TURN = 64  # examples
_SECONDS_BETWEEN_LINES = 20.0


def measured_latency_model(
    journal: Journal,
    model: LengthAdaptiveModel,
    space: ScheduleSpace,
    to_config: Callable[[Schedule], LengthConfig],
    windows: Sequence[TokenSequence],
) -> LatencyModel:
    """Fit the latency model to the times of very different configurations: ramps that begin at different layers."""
    recorded = journal.get("latency", "model")
    if recorded is None:
        layers = np.arange(model.bundle.shape.num_layers)
        ramps = [
            np.where(layers < first, 1.0, np.maximum(_LEAST_SHARE, 1 - slope * (layers - first + 1)))
            for first, slope in _RAMPS
            if first < len(layers)
        ]
        genes = space.repair(np.array([np.log(shares) for shares in ramps]))
        configs = [LengthConfig.full(len(layers)), *(to_config(space.decode(row)) for row in genes)]
        table = measure_latency(model, configs, windows, repeats=RAMPS.repeats)
        recorded = fit_latency_model(table).to_dict()
        journal.add("latency", "model", recorded)
    return LatencyModel.from_dict(recorded)


def run_trial(
    choosing: Scoring[Any], model: LengthAdaptiveModel, latency: LatencyModel, config: LengthConfig, part: range
) -> Trial:
    """Run a configuration on some of the examples to choose on; its latency is predicted, not measured."""
    result = choosing.evaluate(model, config, batch_size=_BATCH, span=slice(part.start, part.stop))
    windows_per_example = len(result.window_lengths) / len(part)
    ms = latency.predict(config, result.window_lengths, result.window_kept).mean()
    return Trial(config, tuple(result.scores), windows_per_example * result.mean_macs, windows_per_example * float(ms))


@dataclass(frozen=True)
class MeasuredFront:
    """The front of a search after it was timed.

    Attributes:
        timed: All trials that were timed; each latency is that of `full` times the measured ratio to it.
        error: Median relative error of the ratios that the latency model predicted; NaN if nothing was timed.
    """

    timed: list[Trial]
    error: float

    @property
    def trials(self) -> list[Trial]:
        """The front by these latencies, fastest first."""
        return front(self.timed)


def measured_front(
    journal: Journal,
    model: LengthAdaptiveModel,
    latency: LatencyModel,
    full: Trial,
    trials: Sequence[Trial],
    windows: Sequence[TokenSequence],
) -> MeasuredFront:
    """Time the best configurations, taking turns with `full`, for the front by these times."""
    if not trials:
        return MeasuredFront([], math.nan)
    every = [full, *trials]
    keys = [str(trial.config) for trial in every]
    if any(journal.get("front", key) is None for key in keys):
        table = measure_latency(model, [t.config for t in every], windows, repeats=FRONT.repeats)
        for i, trial in enumerate(every):
            predicted = latency.predict(trial.config, table.lengths, table.kept[i]).mean()
            journal.add("front", keys[i], [float(table.ms[i].mean()), float(predicted)])
    (full_ms, full_modelled), *figures = (journal.all("front")[key] for key in keys)
    # The machine may be faster or slower than when the model was fitted, so only ratios to `full` can be compared.
    modelled_by_measured = [(modelled / full_modelled) / (ms / full_ms) for ms, modelled in figures]
    measured = [replace(t, latency_ms=t.latency_ms / r) for t, r in zip(trials, modelled_by_measured, strict=True)]
    return MeasuredFront(measured, median(abs(ratio - 1) for ratio in modelled_by_measured))


def measure_for_report(
    reporting: Scoring[Any], model: LengthAdaptiveModel, configs: Mapping[str, LengthConfig]
) -> dict[str, Scored]:
    """Run configurations example by example, after a warm-up, so that times do not include the preparation of kernels.

    The configurations take turns, so that a machine that is slower for a while slows down all of them alike.
    """
    model.warm_up(configs.values())
    spans = [slice(first, first + _TURN) for first in range(0, len(reporting.examples), _TURN)]
    turns = [
        {name: reporting.evaluate(model, config, batch_size=1, span=span) for name, config in configs.items()}
        for span in spans
    ]
    return {name: turns[0][name].join([turn[name] for turn in turns[1:]]) for name in configs}


def progress_lines(log: Callable[[str], None], metric: str, limits: Sequence[float]) -> Callable[[Progress], None]:
    """A function that logs the progress of the search every 20 seconds; `metric` is the name of the score.

    A line tells the fastest configuration that seems to be within each limit, and the share of the examples that it ran
    on.
    """
    last = 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        if monotonic() < last + _SECONDS_BETWEEN_LINES:
            return
        last = monotonic()
        left = "" if progress.seconds_left is None else f", {progress.seconds_left / 60:.1f} min left"
        best = [next((o for o in progress.hopeful if o.loss.mean + o.margin <= limit), None) for limit in limits]
        shown = [
            f"{1 / o.latency:.2f}x faster, {1 / o.macs:.2f}x fewer MACs {-o.loss.mean:+.2f} {metric} "
            f"on {o.measured:.0%}"
            for o in best
            if o is not None and o.latency < 1
        ]
        log(f"{progress.evaluations} configurations tried{left}; best: {'; '.join(dict.fromkeys(shown)) or 'none'}")

    return show
