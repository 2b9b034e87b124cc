"""Calibrate a bundle: find its best length configurations on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from dynamic_tinybert.runtime.bundles.bundle import check_length_configs, open_bundle
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import CalibrationError, InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.common.work_dir import work_dir
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import measure_of

from . import stages
from .data import read_calibration_data
from .result import Calibration
from .run import Run, Settings, SignificanceChoice
from .search.front import NAMED_LIMITS


def calibrate(
    bundle: str | Path,
    data: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    significance: SignificanceChoice = "learnt",
    limits: Mapping[str, float] | None = None,
    budget_minutes: float = 45.0,
    evaluations: int | None = None,
    fitting_steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    num_threads: int | None = None,
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Find the length configurations of a bundle that lose least for the time that they take on this machine.

    Significance is fitted, configurations are searched, and the best of them are measured, each on different examples.
    The bundle is replaced at the very end. Until then all measurements are kept beside it, in a folder named like the
    bundle and ending in ``.calibration``, from which an interrupted run can be resumed. While scorers are fitted, and
    afterwards, the process keeps freed memory (`keep_freed_memory`).

    Args:
        bundle: Folder of a bundle.
        data: Examples to fit on, for question answering in a form that `read_squad` reads, for classification in one
            that `read_texts` reads; answers and labels are not used.
        validation: Examples to choose on; by default some articles of `data`. For question answering the score is the
            mean of F1 against the annotated answers and the expected F1 under the answer distribution of `full`; if a
            question has no annotated answer, it is the latter alone. Unanswerable questions are scored by SQuAD v2's
            rules, and the bundle gets the no-answer threshold that gives `full` the best F1. For classification the
            score is accuracy by the labels or, without them, expected under the probabilities of `full`; for a model
            with one output the closeness of the score to that of `full`.
        test: Examples to report on; by default some articles of `validation` or, without it, of `data`.
        significance: ``learnt`` fits a scorer per layer to what the bundle's model needs; ``trained`` takes the
            bundle's scorers, for checkpoints that were trained with scorers; ``attention`` uses the attention that
            tokens receive.
        limits: Names of length configurations, each with the largest loss against ``full`` that it is allowed, in
            points of the score; besides those in `NAMED_LIMITS`, or in their place. A name goes to the fastest
            configuration whose loss is within its limit at the upper 80 % bound, over examples and over their groups
            (articles, if the data names them).
        budget_minutes: Minutes for the whole calibration. The time that is needed whatever the budget is estimated once
            the data is read; if it exceeds the budget, the calibration takes longer.
        evaluations: Try at most this many configurations even if there is time left.
        fitting_steps: Fit scorers in this many steps, whatever time they take; by default in as many as the budget
            allows. With it and `evaluations`, the same seed gives the same result on machines of any speed.
        seed: Seed for every random choice.
        resume: Continue an interrupted run, if there is one.
        num_threads: CPU threads; by default what the process's CPU affinity and its cgroup's quota allow.
        strict: Refuse data with a faulty example, before anything is fitted.
        say: Called with a line of text for each step.

    Raises:
        BundleError: The bundle is missing, damaged or of a newer format.
        CalibrationError: There was too little time to find anything, and the bundle is unchanged; or there is an
            interrupted run and `resume` is not set.
        DataError: A file cannot be used: too few examples, or one that `strict` refuses.
        LengthConfigError: A name in `limits` cannot be one of a length configuration.
        InvalidInputError: An argument is outside its range, or the interrupted run had other arguments.
        StorageError: A file could not be written.
    """
    if significance not in ("learnt", "trained", "attention"):
        raise InvalidInputError(f"significance is {significance!r}; give 'learnt', 'trained' or 'attention'")
    if not 0 < budget_minutes < math.inf:
        raise InvalidInputError(f"budget_minutes is {budget_minutes}; give a positive number")
    if fitting_steps is not None:
        require_int("fitting_steps", fitting_steps, 1)
    every_limit = _all_limits(limits or {})
    end = monotonic() + 60 * budget_minutes
    source = open_bundle(bundle)
    measure = measure_of(source)
    examples = read_calibration_data(measure, data, validation, test, seed=seed, strict=strict)
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        say(line)

    for line in examples.lines:
        note(line)
    settings = Settings(significance, every_limit, budget_minutes, evaluations, fitting_steps, seed, num_threads)
    header = stages.journal_header(source, [file for file in (data, validation, test) if file is not None], settings)
    place = source.path.resolve().with_name(f"{source.path.resolve().name}.calibration")
    unfinished = CalibrationError(
        f"{place} holds the measurements of an interrupted calibration; continue it with --resume, or delete the folder"
    )
    with (
        work_dir(place, resume=resume, error_if_exists=unfinished) as folder,
        Journal(folder / "journal.jsonl", header) as journal,
    ):
        run = Run(source, measure, examples, settings, folder, journal, end, say, note)
        windows = stages.windows_to_choose_on(run)
        seconds_needed = stages.estimate_time(run, windows)
        selection = stages.select_by(run, seconds_needed)
        models = stages.load_candidate(run, selection)
        choosing = stages.scoring_to_choose(run, models)
        latency = stages.latency_model(run, models, selection, windows)
        searched = stages.search_configs(run, models, selection, windows, choosing, latency)
        best = stages.measure_front(run, models, windows, choosing, searched, latency)
        named = stages.name_configs(run, choosing, searched, best)
        reporting, results = stages.report_configs(run, models, choosing, named)
        reported_file = Path(test or validation or data).name
        length_configs = stages.with_figures(run, named, results, reporting.scored_by, reported_file)
        stages.replace_bundle(run, selection, length_configs, choosing)
    return Calibration(
        path=source.path,
        length_configs=length_configs,
        reporting=reporting.examples,
        evaluations=results,
        chosen=named,
        points=searched.points,
        front=best.trials,
        latency_error=best.error,
        notes=notes,
        metrics=measure.metrics,
        findings=examples.findings,
    )


def _all_limits(own: Mapping[str, float]) -> dict[str, float]:
    """The limits by name, strictest first.

    Raises:
        InvalidInputError: A limit is not a positive number.
        LengthConfigError: A name cannot be one of a length configuration.
    """
    full = LengthConfig.full(1)
    check_length_configs({"full": full, **dict.fromkeys(own, full)}, 1)
    if "full" in own:
        raise LengthConfigError("'full' keeps everything and loses nothing; give the limit another name")
    for name, limit in own.items():
        if not 0 < limit < math.inf:
            raise InvalidInputError(f"the limit of {name!r} is {limit}; give a positive number of points")
    limits = {**NAMED_LIMITS, **own}
    return dict(sorted(limits.items(), key=lambda item: item[1]))
