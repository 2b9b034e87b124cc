"""The stages of a calibration, in the order in which `calibrate` runs them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig
from dynamic_tinybert.runtime.common.errors import CalibrationError
from dynamic_tinybert.runtime.common.publish import publishing, writing
from dynamic_tinybert.runtime.common.work_dir import digest
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.tasks.measure import Scored, Scoring, readable_windows

from .data import shuffled
from .figures import measured_figures
from .measurements import (
    COMPILED,
    FRONT,
    RAMPS,
    MeasuredFront,
    measure_for_report,
    measured_front,
    measured_latency_model,
    progress_lines,
    run_trial,
)
from .recalibrated import write_recalibrated
from .run import Models, Run, Searched, Selection, Settings, Windows
from .search.candidate_runs import Measurer
from .search.front import choose_named, to_time
from .search.latency import spread_by_length
from .search.latency_model import LatencyModel
from .search.schedules import Schedule, ScheduleSpace
from .search.search import search
from .search.seeds import ATTENTION, LEARNT
from .search.trial import Trial
from .significance.learnt import fit_or_load_scorers
from .time_needed import needed_line, seconds_in_any_case, seconds_to_report

_FITTING_SHARE = 0.55  # of the budget
_MOST_SCORERS = 3  # in one configuration: each costs time


def journal_header(source: Bundle, files: Sequence[str | Path], settings: Settings) -> dict[str, object]:
    """What identifies this calibration: measurements of a calibration with another header must not be reused."""
    scorers = None if settings.significance == "attention" else source.scorers
    return {
        "bundle": digest(source.model_xml.with_suffix(".bin")),
        "scorers": None if scorers is None else digest(scorers),
        "data": [digest(Path(file)) for file in files],
        "significance": settings.significance,
        "limits": dict(settings.limits),
        "fitting_steps": settings.fitting_steps,
        "seed": settings.seed,
        "num_threads": settings.num_threads,
        "cpu": cpu.name(),
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino")},
    }


def windows_to_choose_on(run: Run) -> Windows:
    """Tokenise the examples to choose on."""
    choosing = run.data.choosing
    windows = readable_windows(run.measure, choosing)
    return Windows(windows, len(windows) / len(choosing), spread_by_length(windows, RAMPS.windows))


def estimate_time(run: Run, windows: Windows) -> float:
    """Log the time that is needed whatever the budget, and return it in seconds."""
    fitted = run.settings.significance == "attention" or (run.folder / "fit").is_dir()
    needed = seconds_in_any_case(
        LengthAdaptiveModel(run.source, ov_config=run.settings.ov_config),
        windows.timed,
        windows.per_example,
        num_fitting=0 if fitted else len(run.data.fitting),
        num_choosing=len(run.data.choosing),
        num_reporting=len(run.data.reporting),
        front=FRONT,
        latency_model=RAMPS if run.journal.get("latency", "model") is None else None,
        num_names=len(run.settings.limits),
        full_is_known=bool(run.journal.all("trial")),
    )
    run.log(needed_line(needed, run.settings.budget_minutes))
    return sum(needed.values())


def select_by(run: Run, seconds_needed: float) -> Selection:
    """Fit the scorers or load those of an interrupted run; with attention significance there are none.

    Args:
        run: The calibration.
        seconds_needed: Seconds to leave for the other stages.
    """
    num_layers, settings = run.source.shape.num_layers, run.settings
    if settings.significance == "attention":
        return Selection(None, _keep_ratios, ScheduleSpace(num_layers, ATTENTION))
    left = run.end - monotonic() - seconds_needed
    seconds = max(1.0, min(_FITTING_SHARE * 60 * settings.budget_minutes, left))
    trained = settings.significance == "trained"
    learnt = fit_or_load_scorers(
        run.source,
        run.data.fitting,
        run.folder / "fit",
        seconds,
        settings.seed,
        steps=settings.fitting_steps,
        trained=trained,
    )
    run.note(learnt.line)
    space = ScheduleSpace(num_layers, LEARNT, selectable=learnt.sample.layers, most_selecting=_MOST_SCORERS)
    return Selection(learnt.scorers, learnt.sample.length_config, space)


def load_candidate(run: Run, selection: Selection) -> Models:
    """Write the bundle with its new significance to the work folder, and load it."""
    folder = run.folder / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        folder.mkdir()
    full = NamedLengthConfig(LengthConfig.full(run.source.shape.num_layers))
    candidate = write_recalibrated(run.source, folder, selection.scorers, {"full": full})
    options = run.settings.ov_config
    return Models(
        LengthAdaptiveModel(candidate, ov_config=options, max_compiled=COMPILED),
        LengthAdaptiveModel(candidate, ov_config=options, elastic=True),
    )


def scoring_to_choose(run: Run, models: Models) -> Scoring[Any]:
    """Prepare the scoring of the examples to choose on."""
    scoring = run.measure.scoring(models.elastic, shuffled(run.data.choosing, run.settings.seed))
    for line in scoring.lines:
        run.note(line)
    return scoring


def latency_model(run: Run, models: Models, selection: Selection, windows: Windows) -> LatencyModel:
    """Fit the latency model to measured times, or take it from the journal."""
    run.log("Measuring what layers cost at each length")
    return measured_latency_model(run.journal, models.compiled, selection.space, selection.to_config, windows.timed)


def search_configs(
    run: Run, models: Models, selection: Selection, windows: Windows, choosing: Scoring[Any], latency: LatencyModel
) -> Searched:
    """Search until only the time for the later stages is left."""
    run.note(f"Searching on {len(choosing.examples)} {run.measure.examples}, scored by {choosing.scored_by}")
    measurer = Measurer(
        lambda config, part: run_trial(choosing, models.elastic, latency, config, part),
        run.journal,
        num_layers=run.source.shape.num_layers,
        groups=run.groups_of(choosing.examples),
    )
    ms = measurer.full.latency_ms  # of an example
    limits = run.settings.limits
    to_report = seconds_to_report(FRONT, ms, ms / windows.per_example, len(run.data.reporting), len(limits))
    result = search(
        selection.space,
        selection.to_config,
        measurer,
        seed=run.settings.seed,
        max_evaluations=run.settings.evaluations,
        deadline=run.end - to_report,
        limits=tuple(limits.values()),
        progress=progress_lines(run.log, run.score_name, tuple(limits.values())),
    )
    return Searched(measurer.full, result)


def measure_front(
    run: Run, models: Models, windows: Windows, choosing: Scoring[Any], searched: Searched, latency: LatencyModel
) -> MeasuredFront:
    """Time the configurations that may get a name, and some more of the front."""
    groups, limits = run.groups_of(choosing.examples), run.settings.limits.values()
    chosen = to_time(searched.result.candidates, searched.full, limits, groups, FRONT.configs)
    some = shuffled(windows.every, run.settings.seed)[: FRONT.windows]  # random: each length has its natural weight
    return measured_front(run.journal, models.compiled, latency, searched.full, chosen, some)


def name_configs(run: Run, choosing: Scoring[Any], searched: Searched, best: MeasuredFront) -> dict[str, Trial]:
    """Choose the named configurations by their measured latencies, `full` among them.

    Raises:
        CalibrationError: No configuration is faster than `full` and within a limit.
    """
    named = choose_named(best.timed, searched.full, run.settings.limits, run.groups_of(choosing.examples))
    num_tried, loosest = len(searched.result.outcomes), max(run.settings.limits.values())
    if not named:
        raise CalibrationError(
            f"{run.settings.budget_minutes:g} minutes were too short: of {num_tried} length configurations none is "
            f"faster than full and, with confidence, within {loosest} {run.score_name} of it; "
            f"{run.source.path} is unchanged; continue with --resume, which keeps the measurements, and a longer "
            "--budget-minutes"
        )
    run.note(
        f"{num_tried} configurations tried, {len(searched.points)} of them on all {len(searched.full.scores)} "
        f"{run.measure.examples}, {len(best.trials)} on the front; median error of the latency model there "
        f"{best.error:.1%}"
    )
    return {"full": searched.full, **named}


def report_configs(
    run: Run, models: Models, choosing: Scoring[Any], named: Mapping[str, Trial]
) -> tuple[Scoring[Any], dict[str, Scored]]:
    """Run the named configurations on the examples to report on, on which nothing was chosen."""
    examples = run.data.reporting
    run.log(f"Measuring {', '.join(named)} on {len(examples)} {run.measure.examples} that nothing was chosen on")
    reporting = choosing.for_reporting(models.compiled, examples)
    configs = {name: trial.config for name, trial in named.items()}
    return reporting, measure_for_report(reporting, models.compiled, configs)


def with_figures(
    run: Run, named: Mapping[str, Trial], results: Mapping[str, Scored], scored_by: str, data: str
) -> dict[str, NamedLengthConfig]:
    """The named configurations with their figures and the circumstances of the measurement, for the manifest.

    Args:
        run: The calibration.
        named: Trials by name.
        results: Runs by name.
        scored_by: What the examples were scored against.
        data: The name of the file that the examples come from.
    """
    circumstances = {
        "scored_by": scored_by,
        "num_threads": run.settings.num_threads or default_threads(),
        "data": f"{data}, {len(run.data.reporting)} {run.measure.examples}",
        "cpu": cpu.name(),
    }
    groups = run.groups_of(run.data.reporting)
    return {
        name: NamedLengthConfig(
            trial.config,
            {**measured_figures(results[name], results["full"], run.measure.metrics, groups), **circumstances},
        )
        for name, trial in named.items()
    }


def replace_bundle(
    run: Run, selection: Selection, length_configs: Mapping[str, NamedLengthConfig], choosing: Scoring[Any]
) -> None:
    """Replace the bundle by the calibrated one."""
    with publishing(run.source.path, force=True) as target:
        write_recalibrated(run.source, target, selection.scorers, length_configs, **choosing.manifest)


def _keep_ratios(schedule: Schedule) -> LengthConfig:
    return LengthConfig(schedule.shares)
