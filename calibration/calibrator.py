"""Calibration: from a bundle and questions to the same bundle with its best length configurations."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Literal

import numpy as np

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundle import Bundle, NamedLengthConfig, Significance, open_bundle
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.errors import CalibrationError, InvalidInputError
from dynamic_tinybert.runtime.evaluation import Evaluation, joined
from dynamic_tinybert.runtime.publish import publishing, writing
from dynamic_tinybert.runtime.question_checks import Finding, QuestionWindows
from dynamic_tinybert.runtime.squad import Example
from dynamic_tinybert.runtime.windows import Window, WindowTokenizer, window_size

from .data import read_calibration_data
from .figures import measured_figures
from .front import NAMED_LIMITS, choose_named, front
from .journal import Journal
from .latency import LatencyModel, fit_latency_model, measure_latency, spread, spread_by_length
from .learnt import learnt_significance
from .measuring import Measurer
from .recalibrated import write_recalibrated
from .references import References, references
from .schedules import Schedule, ScheduleSpace
from .search import Progress, search
from .time_needed import Measurement, said, seconds_in_any_case, seconds_to_report
from .trial import Trial
from .workplace import digest, workplace

_FITTING_SHARE = 0.55  # of the budget
_BATCH = 8
_TURN = 64  # questions
_COMPILED = 16
_TIMED_WINDOWS = 48
_REPEATS = 3
_FRONT_WINDOWS, _FRONT_REPEATS = 96, 8  # what gets a name is decided by a few per cent
_MOST_ON_FRONT = _COMPILED - 2  # with `full` and one more, in memory at once
_FRONT = Measurement(_MOST_ON_FRONT, _FRONT_WINDOWS, _FRONT_REPEATS)
_SECONDS_BETWEEN_LINES = 20.0
# First layer that selects, and by how much the shares of it and each later one fall.
_RAMPS = ((0, 0.04), (0, 0.12), (1, 0.06), (1, 0.15), (1, 0.25), (2, 0.1), (2, 0.25), (3, 0.2), (4, 0.4), (5, 0.7))
_LEAST_SHARE = 0.1
_RAMPS_TIMED = Measurement(1 + len(_RAMPS), _TIMED_WINDOWS, _REPEATS)


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
        budget_minutes: Time for everything. What is needed in any case is the first thing said; if that is more, the
            budget is exceeded by it.
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
    readable = QuestionWindows(source.tokenizer_json, source.max_length)
    questions = read_calibration_data(data, validation, test, seed=seed, windows=readable, strict=strict)
    num_layers = source.shape.num_layers
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        say(line)

    for line in questions.lines:
        note(line)
    header = {
        "bundle": digest(source.model_xml.with_suffix(".bin")),
        "trained": digest(source.scorers) if significance == "trained" and source.scorers is not None else None,
        "data": [digest(Path(file)) for file in (data, validation, test) if file is not None],
        "significance": significance,
        "seed": seed,
        "num_threads": num_threads,
        "cpu": cpu.name(),
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino")},
    }
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
        windows = _windows(plain, questions.choosing)
        timed = spread_by_length(windows, _TIMED_WINDOWS)
        needed = seconds_in_any_case(
            plain,
            timed,
            len(windows) / len(questions.choosing),
            fits=0 if significance == "attention" or (folder / "fit").is_dir() else len(questions.fitting),
            chooses=len(questions.choosing),
            reports=len(questions.reporting),
            front=_FRONT,
            latency_model=_RAMPS_TIMED if journal.get("latency", "model") is None else None,
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
        model = LengthAdaptiveModel(candidate, ov_config=options, max_compiled=_COMPILED)
        elastic = LengthAdaptiveModel(candidate, ov_config=options, elastic=True)  # no compiling for each candidate
        choosing = references(elastic, _shuffled(questions.choosing, seed), to_choose=True)
        if choosing.no_answer_threshold is not None:
            note(f"The threshold of no answer is {choosing.no_answer_threshold:.3f}, the best for the F1 of full")
        say("Measuring what layers cost at each length")
        latency = _latency_model(journal, model, space, to_config, timed)
        note(f"Searching on {len(choosing.examples)} questions, scored by {choosing.scored_by}")
        measurer = Measurer(
            lambda config, part: _trial(choosing, elastic, latency, config, part),
            journal,
            num_layers=num_layers,
            num_questions=len(choosing.examples),
        )
        found = search(
            space,
            to_config,
            measurer,
            seed=seed,
            max_evaluations=evaluations,
            deadline=end
            - seconds_to_report(_FRONT, measurer.full.latency_ms, measurer.full.latency_ms, len(questions.reporting)),
            progress=_progress_lines(say, measurer.full),
        )
        points = [outcome.trial for outcome in found.outcomes if not outcome.rejected]
        sample_windows = _sample(model, questions.choosing, seed)
        best = _measured(
            journal, model, latency, measurer.full, spread(front(found.candidates), _MOST_ON_FRONT), sample_windows
        )
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
        results = _reported(reporting, model, {name: trial.config for name, trial in named.items()})
        about = {
            "scored_by": reporting.scored_by,
            "num_threads": num_threads or default_threads(),
            "data": f"{Path(test or validation or data).name}, {len(questions.reporting)} questions",
            "cpu": cpu.name(),
        }
        length_configs = {
            name: NamedLengthConfig(trial.config, measured_figures(results[name], results["full"]) | about)
            for name, trial in named.items()
        }
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


def _candidate(source: Bundle, folder: Path, scorers: Path | None) -> Bundle:
    """The bundle with its new significance, to be measured."""
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        folder.mkdir()
    full = LengthConfig.full(source.shape.num_layers)
    return write_recalibrated(source, folder, scorers, {"full": NamedLengthConfig(full)})


def _keep_ratios(schedule: Schedule) -> LengthConfig:
    return LengthConfig(schedule.shares)


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    return [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]


def _windows(model: LengthAdaptiveModel, examples: Sequence[Example]) -> list[Window]:
    tokenize = WindowTokenizer(model.tokenizer_file)
    max_seq_len, doc_stride = window_size(model.max_length)
    return [
        window
        for example in examples
        for window in tokenize(example.question, example.context, max_seq_len=max_seq_len, doc_stride=doc_stride)
    ]


def _sample(model: LengthAdaptiveModel, examples: Sequence[Example], seed: int) -> list[Window]:
    """Windows of random questions, so that lengths have their weight."""
    return _windows(model, _shuffled(examples, seed)[:_FRONT_WINDOWS])


def _latency_model(
    journal: Journal,
    model: LengthAdaptiveModel,
    space: ScheduleSpace,
    to_config: Callable[[Schedule], LengthConfig],
    windows: Sequence[Window],
) -> LatencyModel:
    """Measure some very different configurations, each a ramp that begins at some layer."""
    recorded = journal.get("latency", "model")
    if recorded is None:
        layers = np.arange(model.bundle.shape.num_layers)
        ramps = [
            np.where(layers < first, 1.0, np.maximum(_LEAST_SHARE, 1 - slope * (layers - first + 1)))
            for first, slope in _RAMPS
            if first < len(layers)
        ]
        genes = space.repair(np.array([np.log(shares) for shares in ramps]))
        configs = [LengthConfig.full(len(layers)), *(to_config(space.decode(row)) for row in genes)]
        table = measure_latency(model, configs, windows, repeats=_REPEATS)
        recorded = fit_latency_model(table).to_dict()
        journal.add("latency", "model", recorded)
    return LatencyModel.from_dict(recorded)


def _trial(
    choosing: References, model: LengthAdaptiveModel, latency: LatencyModel, config: LengthConfig, part: range
) -> Trial:
    result = choosing.evaluate(model, config, batch_size=_BATCH, span=slice(part.start, part.stop))
    windows_per_question = len(result.window_lengths) / len(part)
    ms = latency.predict(config, result.window_lengths, result.window_kept).mean()
    return Trial(config, result.question_f1, windows_per_question * result.mean_macs, windows_per_question * float(ms))


@dataclass(frozen=True)
class _Measured:
    """A front with measured shares of the latency of `full`, and the median error of the modelled ones."""

    trials: list[Trial]
    error: float


def _measured(
    journal: Journal,
    model: LengthAdaptiveModel,
    latency: LatencyModel,
    full: Trial,
    trials: Sequence[Trial],
    windows: Sequence[Window],
) -> _Measured:
    if not trials:
        return _Measured([], math.nan)
    every = [full, *trials]
    keys = [str(trial.config) for trial in every]
    if any(journal.get("front", key) is None for key in keys):
        table = measure_latency(model, [t.config for t in every], windows, repeats=_FRONT_REPEATS)
        for i, trial in enumerate(every):
            predicted = latency.predict(trial.config, table.lengths, table.kept[i]).mean()
            journal.add("front", keys[i], [float(table.ms[i].mean()), float(predicted)])
    (full_ms, full_modelled), *figures = (journal.all("front")[key] for key in keys)
    # The machine may be faster or slower now than when the model was fitted: what counts is the share of `full`.
    modelled_by_measured = [(modelled / full_modelled) / (ms / full_ms) for ms, modelled in figures]
    measured = [replace(t, latency_ms=t.latency_ms / r) for t, r in zip(trials, modelled_by_measured, strict=True)]
    return _Measured(front(measured), median(abs(ratio - 1) for ratio in modelled_by_measured))


def _reported(
    questions: References, model: LengthAdaptiveModel, configs: Mapping[str, LengthConfig]
) -> dict[str, Evaluation]:
    """Evaluations question by question, whose times are not those of preparing kernels.

    The configurations take turns, so that a machine that is slower for a while is so for all of them.
    """
    model.warm_up(configs.values())
    spans = [slice(first, first + _TURN) for first in range(0, len(questions.examples), _TURN)]
    turns = [
        {name: questions.evaluate(model, config, batch_size=1, span=span) for name, config in configs.items()}
        for span in spans
    ]
    return {name: joined([turn[name] for turn in turns]) for name in configs}


def _progress_lines(say: Callable[[str], None], full: Trial) -> Callable[[Progress], None]:
    """Say now and then how far the search is."""
    last = 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        if monotonic() < last + _SECONDS_BETWEEN_LINES:
            return
        last = monotonic()
        left = "" if progress.seconds_left is None else f", {progress.seconds_left / 60:.1f} min left"
        shown = [
            f"{full.latency_ms / trial.latency_ms:.2f}x faster, {full.macs / trial.macs:.2f}x fewer MACs "
            f"{trial.f1 - full.f1:+.2f} F1"
            for limit in NAMED_LIMITS.values()
            if (trial := next((t for t in progress.front if t.f1 >= full.f1 - limit), full)) is not full
        ]
        say(f"{progress.evaluations} configurations tried{left}; best: {'; '.join(dict.fromkeys(shown)) or 'none'}")

    return show
