"""Reports of calibrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dynamic_tinybert.calibration.calibrator import Calibration
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime import LengthAdaptiveModel

from .contents import Point
from .evaluations import evaluation_report
from .page import write_report


def write_calibration_report(calibration: Calibration, path: str | Path, *, num_threads: int | None = None) -> None:
    """Write the page of a calibration; first measure where the speed comes from, about a minute.

    Args:
        calibration: What was found.
        path: The HTML file.
        num_threads: CPU threads that it was measured with.

    Raises:
        InferenceError: OpenVINO failed.
        InvalidInputError: There is no folder to write the page to.
        StorageError: It could not be written.
    """
    model = LengthAdaptiveModel.from_pretrained(calibration.path, num_threads=num_threads)
    full = calibration.chosen["full"]
    report = evaluation_report(
        model,
        calibration.reporting,
        calibration.evaluations,
        data=str((calibration.length_configs["full"].measured or {})["data"]),
        num_threads=num_threads,
    )
    note = (
        "Significance was fitted, configurations were chosen, and the table's figures were taken on three different "
        "sets of questions. The picture of F1 against cost is of those to choose on: times of faint points are those "
        "of a model of the latency, times of the front and of named configurations were measured. Half of its F1 is "
        "the one expected if full believed rightly, or all of it where questions lack answers. F1 of faint points is "
        "as measured, that of the front and of named configurations as is to be expected after all measurements."
    )
    report = replace(
        report,
        named=tuple(replace(r, point=_point(calibration.chosen[r.name], full)) for r in report.named),
        plot_data=f"{len(full.question_f1)} questions to choose on",
        points=tuple(_point(trial, full) for trial in calibration.points),
        front=tuple(_point(trial, full) for trial in calibration.front),
        notes=(*report.notes, note, *calibration.notes),
    )
    write_report(report, path)


def _point(trial: Trial, full: Trial) -> Point:
    return Point(trial.latency_ms, trial.f1, full.macs / trial.macs)
