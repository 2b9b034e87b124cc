"""The values that the stages of a calibration pass to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.bundles.bundle import Bundle, Significance
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.tasks.measure import Measure

from .data import CalibrationData
from .search.schedules import Schedule, ScheduleSpace
from .search.search import SearchResult
from .search.trial import Trial

SignificanceChoice = Significance | Literal["trained"]


@dataclass(frozen=True)
class Settings:
    """The options of `calibrate` that its stages need."""

    significance: SignificanceChoice
    limits: Mapping[str, float]
    budget_minutes: float
    evaluations: int | None
    fitting_steps: int | None
    seed: int
    num_threads: int | None

    @property
    def ov_config(self) -> dict[str, object]:
        """OpenVINO's properties for all models that are measured."""
        return {} if self.num_threads is None else {"INFERENCE_NUM_THREADS": self.num_threads}


@dataclass(frozen=True)
class Run:
    """A running calibration: what all of its stages need.

    Attributes:
        source: The bundle to calibrate.
        measure: The measure of its task.
        data: The examples.
        settings: The options that stages need.
        folder: The work folder.
        journal: Keeps every measurement.
        end: Value of `time.monotonic` at which the budget is used up.
        log: Called with a line about the progress.
        note: Called with a line that also becomes part of the result.
    """

    source: Bundle
    measure: Measure[Any]
    data: CalibrationData[Any]
    settings: Settings
    folder: Path
    journal: Journal
    end: float
    log: Callable[[str], None]
    note: Callable[[str], None]

    def groups_of(self, examples: Iterable[Any]) -> list[str]:
        """For each example the name of its group, such as its article."""
        return [self.measure.group_of(example) for example in examples]

    @property
    def score_name(self) -> str:
        """The name of the score, for messages."""
        return next(iter(self.measure.metrics.values()))


@dataclass(frozen=True)
class Windows:
    """The model inputs of the examples to choose on.

    Attributes:
        every: All windows.
        per_example: Mean number of windows of an example.
        timed: Some windows, of all lengths, that the latency model is fitted on.
    """

    every: Sequence[TokenSequence]
    per_example: float
    timed: Sequence[TokenSequence]


@dataclass(frozen=True)
class Selection:
    """How layers select tokens.

    Attributes:
        scorers: The file of the scorers; None for attention significance.
        to_config: Returns the length configuration of a schedule.
        space: The schedules to search.
    """

    scorers: Path | None
    to_config: Callable[[Schedule], LengthConfig]
    space: ScheduleSpace


@dataclass(frozen=True)
class Models:
    """The bundle with its new significance.

    Attributes:
        compiled: Compiles a graph for each configuration; this one is timed.
        elastic: Runs all configurations on one graph, so that nothing is compiled for a candidate of the search.
    """

    compiled: LengthAdaptiveModel
    elastic: LengthAdaptiveModel


@dataclass(frozen=True)
class Searched:
    """The trial of `full`, and what the search found."""

    full: Trial
    result: SearchResult

    @property
    def points(self) -> list[Trial]:
        """The trials on all examples that were not rejected."""
        return [outcome.trial for outcome in self.result.outcomes if outcome.finished]
