"""The result of a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig
from dynamic_tinybert.runtime.tasks.measure import Finding, Scored

from .search.trial import Trial


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration.

    Attributes:
        path: The bundle.
        length_configs: Its named length configurations with their figures.
        reporting: The examples that these figures were measured on.
        evaluations: The runs that these figures come from, by name.
        chosen: The trials of the named configurations on the examples to choose on; but for `full`, they are taken
            from those that were timed.
        points: All configurations that were tried on all examples to choose on, with predicted latencies.
        front: The front of those that were timed, fastest first, with measured latencies and with the scores that are
            expected given all measurements.
        latency_error: Median relative error of the latency model on those that were timed.
        notes: What was done on which data, one line each.
        metrics: Short names of the figures that the task measures, by key; the first is the mean score.
        findings: Faults of the examples; those that the model cannot read were skipped.
    """

    path: Path
    length_configs: Mapping[str, NamedLengthConfig]
    reporting: Sequence[Any]
    evaluations: Mapping[str, Scored]
    chosen: Mapping[str, Trial]
    points: Sequence[Trial]
    front: Sequence[Trial]
    latency_error: float
    notes: Sequence[str]
    metrics: Mapping[str, str]
    findings: Sequence[Finding] = ()
