"""The HTML report of a calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dynamic_tinybert.calibration.result import Calibration
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.measure import measure_of

from .contents import Point
from .evaluations import evaluation_report
from .page import write_report


def write_calibration_report(calibration: Calibration, path: str | Path, *, num_threads: int | None = None) -> None:
    """Write the page of a calibration; first measure where the speed comes from, about a minute.

    Args:
        calibration: The calibration.
        path: The HTML file.
        num_threads: CPU threads that the calibration was run with.

    Raises:
        InferenceError: OpenVINO failed.
        InvalidInputError: There is no folder to write the page to.
        StorageError: The page could not be written.
    """
    model = LengthAdaptiveModel.from_pretrained(calibration.path, num_threads=num_threads)
    measure = measure_of(model.bundle)
    full = calibration.chosen["full"]
    report = evaluation_report(
        model,
        measure,
        calibration.reporting,
        calibration.evaluations,
        data=str((calibration.length_configs["full"].measured or {})["data"]),
        num_threads=num_threads,
    )
    note = (
        "Significance was fitted, configurations were chosen, and the table's figures were measured on three different "
        f"sets of {measure.examples}. The plot of {report.score} against cost shows the {measure.examples} to choose "
        "on: the times of faint points are predicted by a latency model, those of the front and of named "
        f"configurations were measured. About its {report.score}: {measure.wording.chosen_by} That of faint points is "
        "as measured; that of the front and of named configurations is the expected value given all measurements."
    )
    report = replace(
        report,
        named=tuple(replace(r, point=_point(calibration.chosen[r.name], full)) for r in report.named),
        plot_data=f"{len(full.scores)} {measure.examples} to choose on",
        points=tuple(_point(trial, full) for trial in calibration.points),
        front=tuple(_point(trial, full) for trial in calibration.front),
        notes=(*report.notes, note, *calibration.notes),
    )
    write_report(report, path)


def _point(trial: Trial, full: Trial) -> Point:
    return Point(trial.latency_ms, trial.score, full.macs / trial.macs)
