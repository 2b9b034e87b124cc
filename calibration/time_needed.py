"""What a calibration takes whatever its budget, estimated before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.inference import stack_windows
from dynamic_tinybert.runtime.tasks.question_answering.windows import Window

from .search.front import NAMED_LIMITS
from .significance.fitting import HELD_OUT

SECONDS_TO_COMPILE = 5.0  # of a configuration, with the kernels of all lengths
PASSES_BEFORE_TIMING = 2
_TIMED = 12


@dataclass(frozen=True)
class Measurement:
    """Windows on which some configurations are timed.

    Attributes:
        configs: How many at most.
        windows: How many.
        repeats: How often.
    """

    configs: int
    windows: int
    repeats: int

    def seconds(self, ms: float) -> float:
        """Time that it takes, a window of `full` taking so many milliseconds."""
        return self.configs * (SECONDS_TO_COMPILE + self.windows * (self.repeats + PASSES_BEFORE_TIMING) * ms / 1e3)


def seconds_to_report(front: Measurement, ms_per_question: float, ms_per_window: float, num_questions: int) -> float:
    """Time for what follows the search: compiling and timing the front, and named configurations on each question."""
    return front.seconds(ms_per_window) + (1 + len(NAMED_LIMITS)) * num_questions * (ms_per_question + 1) / 1e3


def seconds_in_any_case(
    model: LengthAdaptiveModel,
    timed: Sequence[Window],
    windows_per_question: float,
    *,
    fits: int,
    chooses: int,
    reports: int,
    front: Measurement,
    latency_model: Measurement | None,
    full_is_known: bool,
) -> dict[str, float]:
    """Seconds by what they are for.

    Args:
        model: The bundle as it is; some windows are timed.
        timed: Windows of all lengths.
        windows_per_question: In the mean.
        fits: Questions to fit on; 0 if nothing is fitted.
        chooses: Questions to choose on.
        reports: Questions to report on.
        front: What is timed after the search.
        latency_model: What is timed before it; None if that is known.
        full_is_known: `full` has answered the questions to choose on.
    """
    ms = _ms_of_full(model, timed)
    per_question = windows_per_question * ms
    held_out = min(HELD_OUT, -(-fits // 10))
    return {
        "fitting": 2 * held_out * per_question / 1e3,
        "asking full": (1 if full_is_known else 2) * chooses * (per_question + 1) / 1e3,
        "latencies": 0.0 if latency_model is None else latency_model.seconds(ms),
        "measuring and reporting what was found": seconds_to_report(front, per_question, ms, reports),
    }


def _ms_of_full(model: LengthAdaptiveModel, windows: Sequence[Window]) -> float:
    """Mean over windows, each of them run before it is timed."""
    seconds = 0.0
    some = windows[:: -(-len(windows) // _TIMED)]
    for window in some:
        inputs = stack_windows([window])
        model(**inputs, length_config="full")
        start = perf_counter()
        model(**inputs, length_config="full")
        seconds += perf_counter() - start
    return 1e3 * seconds / len(some)


def said(seconds: dict[str, float], budget_minutes: float) -> str:
    """A line that says what is needed, and whether that is more than there is."""
    parts = ", ".join(f"{value / 60:.1f} for {name}" for name, value in seconds.items() if value >= 3)
    total = sum(seconds.values()) / 60
    line = f"About {total:.1f} minutes are needed whatever the budget" + (f" ({parts})" if parts else "")
    if total > budget_minutes:
        return f"{line}: more than the {budget_minutes:g} of --budget-minutes, which will be exceeded"
    return f"{line}, of {budget_minutes:g}"
