"""The HTML report of a calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dynamic_tinybert.calibration.result import Calibration
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.evaluation_result import Evaluation

from .contents import Point
from .evaluations import evaluation_report
from .page import write_report


def check_reportable(bundle: str | Path) -> None:
    """Check that a calibration of this bundle can be shown, before it takes its time.

    Raises:
        BundleError: The bundle is missing, damaged or of a newer format.
        InvalidInputError: It is of another task than question answering.
    """
    task = open_bundle(bundle).task
    if task != "question_answering":
        raise InvalidInputError(
            f"a report can show question answering only, and {bundle} is a bundle for {task!r}; leave out --report: "
            "the figures are printed, and kept in the bundle"
        )


def write_calibration_report(calibration: Calibration, path: str | Path, *, num_threads: int | None = None) -> None:
    """Write the page of a calibration; first measure where the speed comes from, about a minute.

    Args:
        calibration: A calibration of a question-answering bundle.
        path: The HTML file.
        num_threads: CPU threads that the calibration was run with.

    Raises:
        InferenceError: OpenVINO failed.
        InvalidInputError: There is no folder to write the page to, or the bundle is of another task.
        StorageError: The page could not be written.
    """
    check_reportable(calibration.path)
    model = LengthAdaptiveModel.from_pretrained(calibration.path, num_threads=num_threads)
    evaluations = {name: run for name, run in calibration.evaluations.items() if isinstance(run, Evaluation)}
    full = calibration.chosen["full"]
    report = evaluation_report(
        model,
        calibration.reporting,
        evaluations,
        data=str((calibration.length_configs["full"].measured or {})["data"]),
        num_threads=num_threads,
    )
    note = (
        "Significance was fitted, configurations were chosen, and the table's figures were measured on three different "
        "sets of questions. The plot of F1 against cost shows the questions to choose on: the times of faint points "
        "are predicted by a latency model, those of the front and of named configurations were measured. Its F1 is the "
        "mean of F1 against the annotated answers and the expected F1 under the answer distribution of full; for "
        "questions without annotated answers, it is the latter alone. F1 of faint points is as measured; F1 of the "
        "front and of named configurations is the expected value given all measurements."
    )
    report = replace(
        report,
        named=tuple(replace(r, point=_point(calibration.chosen[r.name], full)) for r in report.named),
        plot_data=f"{len(full.scores)} questions to choose on",
        points=tuple(_point(trial, full) for trial in calibration.points),
        front=tuple(_point(trial, full) for trial in calibration.front),
        notes=(*report.notes, note, *calibration.notes),
    )
    write_report(report, path)


def _point(trial: Trial, full: Trial) -> Point:
    return Point(trial.latency_ms, trial.score, full.macs / trial.macs)
