"""Calibration: from a bundle and questions to the same bundle with its best length configurations."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Literal, TypeVar

import numpy as np

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, Significance, open_bundle
from dynamic_tinybert.runtime.common.errors import CalibrationError, InvalidInputError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.common.publish import publishing, writing
from dynamic_tinybert.runtime.common.work_dir import digest, workplace
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import Evaluation
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.findings import Finding
from dynamic_tinybert.runtime.tasks.question_answering.gold_answers import references
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from .data import read_calibration_data
from .figures import measured_figures
from .recalibrated import write_recalibrated
from .search.candidate_runs import Measurer
from .search.front import NAMED_LIMITS, choose_named, front
from .search.latency import spread, spread_by_length
from .search.schedules import Schedule, ScheduleSpace
from .search.search import search
from .search.trial import Trial
from .significance.learnt import learnt_significance
from .steps import COMPILED, FRONT, RAMPS, measured_front, measured_latency_model, progress_lines, reported, tried
from .time_needed import said, seconds_in_any_case, seconds_to_report

_FITTING_SHARE = 0.55  # of the budget

T = TypeVar("T")


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        path: The bundle.
        length_configs: Its named length configurations with their figures.
        reporting: The questions that these figures are of.
        evaluations: The evaluations, by name, that they come from.
        chosen: By name what made them chosen, on the questions to choose on as are the following; F1 as in `front`.
        points: All configurations that were tried on all of these questions, with modelled latencies.
        front: The best of them, fastest first, with measured latencies and with F1 as is to be expected after what
            was measured of all.
        latency_error: Median relative error of the latency model on the front.
        notes: What was done on what, a line each.
        findings: What is wrong with questions of the data; those that the model cannot read were skipped.
    """

    path: Path
    length_configs: Mapping[str, NamedLengthConfig]
    reporting: Sequence[Example]
    evaluations: Mapping[str, Evaluation]
    chosen: Mapping[str, Trial]
    points: Sequence[Trial]
    front: Sequence[Trial]
    latency_error: float
    notes: Sequence[str]
    findings: Sequence[Finding] = ()


def calibrate(
    bundle: str | Path,
    data: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    significance: Significance | Literal["trained"] = "learnt",
    budget_minutes: float = 45.0,
    evaluations: int | None = None,
    seed: int = 0,
    resume: bool = False,
    num_threads: int | None = None,
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Give a bundle the length configurations that lose least for the time that they take on this machine.

    Significance is fitted, configurations are searched, and the best are measured, each on questions of its own. The
    bundle is replaced at the very end. Until then all that was measured is kept beside it, in a folder named like the
    bundle and ending in ``.calibration``, from which an interrupted run goes on.

    Args:
        bundle: Folder of a bundle.
        data: Questions to fit on, in a form that `read_squad` reads; answers are not looked at.
        validation: To choose on; by default some articles of `data`. Configurations are scored by the mean of their
            F1 and of the one expected if `full` believed rightly; where a question has no answer, by the latter alone.
            Unanswerable ones are scored by SQuAD v2's rules, and the bundle gets the threshold of no answer that gives
            `full` the best F1.
        test: To report on; by default some articles of `validation` or, without it, of `data`.
        significance: ``learnt`` fits a scorer per layer; ``trained`` takes those that the bundle has, which
            is for checkpoints that were trained with scorers; ``attention`` goes by the attention that tokens receive.
        budget_minutes: Time for everything. What is needed whatever the budget is said once the data is read; if that
            is more than the budget, the budget is exceeded.
        evaluations: End the search after so many configurations even if there is time left.
        seed: Of all that is random.
        resume: Go on from what an interrupted run left, if there is one.
        num_threads: CPU threads; by default what the process's CPU affinity and its cgroup's quota allow.
        strict: Refuse data in which something is wrong with a question, at the start.
        say: Receives a line for each step.

    Raises:
        BundleError: The bundle is missing, damaged or of a newer format.
        CalibrationError: There was too little time to find anything, and the bundle stays as it was; or an
            interrupted run is there and `resume` is not set.
        DataError: A file cannot be used: too few questions, or one that `strict` refuses.
        InvalidInputError: An argument is outside its range, or the interrupted run had other ones.
        StorageError: A file could not be written.
    """
    if significance not in ("learnt", "trained", "attention"):
        raise InvalidInputError(f"significance is {significance!r}; give 'learnt', 'trained' or 'attention'")
    if not 0 < budget_minutes < math.inf:
        raise InvalidInputError(f"budget_minutes is {budget_minutes}; give a positive number")
    end = monotonic() + 60 * budget_minutes
    source = open_bundle(bundle)
    windows_of = Windowing.of(source)
    questions = read_calibration_data(data, validation, test, seed=seed, windows=windows_of, strict=strict)
    num_layers = source.shape.num_layers
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        say(line)

    for line in questions.lines:
        note(line)
    files = [file for file in (data, validation, test) if file is not None]
    header = _header(source, files, significance, seed, num_threads)
    place = source.path.resolve().with_name(f"{source.path.resolve().name}.calibration")
    unfinished = CalibrationError(
        f"{place} holds what an interrupted calibration measured; go on from there with --resume, or delete it"
    )
    with (
        workplace(place, resume=resume, in_the_way=unfinished) as folder,
        Journal(folder / "journal.jsonl", header) as journal,
    ):
        options = {} if num_threads is None else {"INFERENCE_NUM_THREADS": num_threads}
        plain = LengthAdaptiveModel(source, ov_config=options)
        windows = windows_of.windows(questions.choosing)
        per_question = len(windows) / len(questions.choosing)
        timed = spread_by_length(windows, RAMPS.windows)
        needed = seconds_in_any_case(
            plain,
            timed,
            per_question,
            fits=0 if significance == "attention" or (folder / "fit").is_dir() else len(questions.fitting),
            chooses=len(questions.choosing),
            reports=len(questions.reporting),
            front=FRONT,
            latency_model=RAMPS if journal.get("latency", "model") is None else None,
            full_is_known=bool(journal.all("trial")),
        )
        say(said(needed, budget_minutes))
        del plain  # its graphs are not those to come
        if significance != "attention":
            left = end - monotonic() - sum(needed.values())
            seconds = max(1.0, min(_FITTING_SHARE * 60 * budget_minutes, left))
            scorers, sample, done = learnt_significance(
                source, questions.fitting, folder / "fit", seconds, seed, trained=significance == "trained"
            )
            note(done)
            space = ScheduleSpace(num_layers, selectable=sample.layers)
            to_config = sample.length_config
        else:
            scorers, to_config, space = None, _keep_ratios, ScheduleSpace(num_layers)
        candidate = _candidate(source, folder / "bundle", scorers)
        model = LengthAdaptiveModel(candidate, ov_config=options, max_compiled=COMPILED)
        elastic = LengthAdaptiveModel(candidate, ov_config=options, elastic=True)  # no compiling for each candidate
        choosing = references(elastic, _shuffled(questions.choosing, seed), to_choose=True)
        if choosing.no_answer_threshold is not None:
            note(f"The threshold of no answer is {choosing.no_answer_threshold:.3f}, the best for the F1 of full")
        say("Measuring what layers cost at each length")
        latency = measured_latency_model(journal, model, space, to_config, timed)
        note(f"Searching on {len(choosing.examples)} questions, scored by {choosing.scored_by}")
        measurer = Measurer(
            lambda config, part: tried(choosing, elastic, latency, config, part),
            journal,
            num_layers=num_layers,
            num_questions=len(choosing.examples),
        )
        ms = measurer.full.latency_ms  # of a question
        to_report = seconds_to_report(FRONT, ms, ms / per_question, len(questions.reporting))
        found = search(
            space,
            to_config,
            measurer,
            seed=seed,
            max_evaluations=evaluations,
            deadline=end - to_report,
            progress=progress_lines(say, measurer.full),
        )
        points = [outcome.trial for outcome in found.outcomes if not outcome.rejected]
        on_front = spread(front(found.candidates), FRONT.configs)
        some = _shuffled(windows, seed)[: FRONT.windows]  # random, so that lengths have their weight
        best = measured_front(journal, model, latency, measurer.full, on_front, some)
        named = choose_named(best.trials, measurer.full)
        if not named:
            raise CalibrationError(
                f"{budget_minutes:g} minutes were too short: of {len(found.outcomes)} length configurations none is "
                f"faster than full and surely within {max(NAMED_LIMITS.values())} F1 of it, and {source.path} stays as "
                "it was; go on with --resume, which keeps what was measured, and a longer --budget-minutes"
            )
        note(
            f"{len(found.outcomes)} configurations tried, {len(best.trials)} on the front; median error of the latency "
            f"model there {best.error:.1%}"
        )
        named = {"full": measurer.full, **named}
        say(f"Measuring {', '.join(named)} on {len(questions.reporting)} questions that nothing was chosen on")
        reporting = references(model, questions.reporting, no_answer_threshold=choosing.no_answer_threshold)
        results = reported(reporting, model, {name: trial.config for name, trial in named.items()})
        about = {
            "scored_by": reporting.scored_by,
            "num_threads": num_threads or default_threads(),
            "data": f"{Path(test or validation or data).name}, {len(questions.reporting)} questions",
            "cpu": cpu.name(),
        }
        length_configs = _with_figures(named, results, about)
        with publishing(source.path, force=True) as target:
            write_recalibrated(source, target, scorers, length_configs, choosing.no_answer_threshold)
    return Calibration(
        source.path,
        length_configs,
        reporting.examples,
        results,
        named,
        points,
        best.trials,
        best.error,
        notes,
        questions.findings,
    )


def _header(
    source: Bundle,
    files: Sequence[str | Path],
    significance: str,
    seed: int,
    num_threads: int | None,
) -> dict[str, object]:
    """What tells this calibration from others, whose measurements are not its own."""
    return {
        "bundle": digest(source.model_xml.with_suffix(".bin")),
        "trained": digest(source.scorers) if significance == "trained" and source.scorers is not None else None,
        "data": [digest(Path(file)) for file in files],
        "significance": significance,
        "seed": seed,
        "num_threads": num_threads,
        "cpu": cpu.name(),
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino")},
    }


def _candidate(source: Bundle, folder: Path, scorers: Path | None) -> Bundle:
    """The bundle with its new significance, to be measured."""
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        folder.mkdir()
    full = LengthConfig.full(source.shape.num_layers)
    return write_recalibrated(source, folder, scorers, {"full": NamedLengthConfig(full)})


def _with_figures(
    named: Mapping[str, Trial], results: Mapping[str, Evaluation], about: Mapping[str, object]
) -> dict[str, NamedLengthConfig]:
    """The configurations with what was measured of each, and what it was measured on."""
    return {
        name: NamedLengthConfig(trial.config, {**measured_figures(results[name], results["full"]), **about})
        for name, trial in named.items()
    }


def _keep_ratios(schedule: Schedule) -> LengthConfig:
    return LengthConfig(schedule.shares)


def _shuffled(items: Sequence[T], seed: int) -> list[T]:
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
