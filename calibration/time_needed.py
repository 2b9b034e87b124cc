"""Estimate, before a calibration begins, the time that it needs whatever its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from dynamic_tinybert.runtime.batches import TokenSequence, stack
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .significance.fitting import HELD_OUT

SECONDS_TO_COMPILE = 5.0  # one configuration, with its kernels for all lengths
PASSES_BEFORE_TIMING = 2
_TIMED = 12
_TEACHER = 8  # times as long as a pass of the compiled graph: a pass of its PyTorch model and token importance


@dataclass(frozen=True)
class Measurement:
    """Windows on which some configurations are timed.

    Attributes:
        configs: Largest number of configurations.
        windows: Number of windows.
        repeats: How many times each window is timed.
    """

    configs: int
    windows: int
    repeats: int

    def seconds(self, ms: float) -> float:
        """Seconds that the measurement takes if a window at `full` takes `ms` milliseconds."""
        return self.configs * (SECONDS_TO_COMPILE + self.windows * (self.repeats + PASSES_BEFORE_TIMING) * ms / 1e3)


def seconds_to_report(
    front: Measurement, ms_per_example: float, ms_per_window: float, num_examples: int, num_names: int
) -> float:
    """Seconds after the search: to compile and time the front, and to run the named configurations on each question."""
    return front.seconds(ms_per_window) + (1 + num_names) * num_examples * (ms_per_example + 1) / 1e3


def seconds_in_any_case(
    model: LengthAdaptiveModel,
    timed: Sequence[TokenSequence],
    windows_per_example: float,
    *,
    num_fitting: int,
    num_choosing: int,
    num_reporting: int,
    front: Measurement,
    latency_model: Measurement | None,
    num_names: int,
    full_is_known: bool,
) -> dict[str, float]:
    """Seconds that a calibration needs whatever its budget, by purpose.

    Args:
        model: The bundle before its calibration, which some windows are timed with.
        timed: Windows of all lengths.
        windows_per_example: Mean number of windows of a question.
        num_fitting: Questions to fit on; 0 if nothing is fitted.
        num_choosing: Questions to choose on.
        num_reporting: Questions to report on.
        front: What is timed after the search.
        latency_model: What is timed before the search; None if those times are known.
        num_names: Largest number of configurations that get a name.
        full_is_known: Whether `full` has been run on the questions to choose on.
    """
    ms = _ms_of_full(model, timed)
    per_example = windows_per_example * ms
    held_out = min(HELD_OUT, -(-num_fitting // 10))
    return {
        "fitting": (1 + _TEACHER) * held_out * per_example / 1e3,
        "asking full": (1 if full_is_known else 2) * num_choosing * (per_example + 1) / 1e3,
        "latencies": 0.0 if latency_model is None else latency_model.seconds(ms),
        "measuring and reporting what was found": seconds_to_report(front, per_example, ms, num_reporting, num_names),
    }


def _ms_of_full(model: LengthAdaptiveModel, windows: Sequence[TokenSequence]) -> float:
    """Mean time of a window at `full`; each is run once before it is timed."""
    seconds = 0.0
    some = windows[:: -(-len(windows) // _TIMED)]
    for window in some:
        inputs = stack([window])
        model(**inputs, length_config="full")
        start = perf_counter()
        model(**inputs, length_config="full")
        seconds += perf_counter() - start
    return 1e3 * seconds / len(some)


def needed_line(seconds: dict[str, float], budget_minutes: float) -> str:
    """A line about the time that is needed in any case, and whether it exceeds the budget."""
    parts = ", ".join(f"{value / 60:.1f} for {name}" for name, value in seconds.items() if value >= 3)
    total = sum(seconds.values()) / 60
    line = f"About {total:.1f} minutes are needed whatever the budget" + (f" ({parts})" if parts else "")
    if total > budget_minutes:
        return f"{line}: more than the {budget_minutes:g} of --budget-minutes, which will be exceeded"
    return f"{line}, of {budget_minutes:g}"
