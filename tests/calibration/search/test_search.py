"""The search, on questions whose F1 and latency follow from the shares that are kept."""

import json
import math
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import numpy as np
import pytest

from dynamic_tinybert.calibration.search.candidate_runs import Measurer, Outcome, RunCandidate
from dynamic_tinybert.calibration.search.pooling import pooled
from dynamic_tinybert.calibration.search.schedules import Schedule, ScheduleSpace
from dynamic_tinybert.calibration.search.search import Progress, search
from dynamic_tinybert.calibration.search.seeds import LEARNT
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.length_config import LengthConfig

NUM_LAYERS, NUM_QUESTIONS, EVALUATIONS = 6, 800, 60
STEPS = 4  # on 100, 200, 400 and 800 questions
SPACE = ScheduleSpace(NUM_LAYERS, LEARNT, most_selecting=3)
GROUPS = [f"article {i % 20}" for i in range(NUM_QUESTIONS)]

# A question is answered until its layers' losses add up to more than it tolerates; later layers tolerate more.
TOLERANCE = np.random.default_rng(0).exponential(75.0, NUM_QUESTIONS)
LAYER_TOLERANCE = np.array([0.25, 0.47, 1.7, 4.6, 11.0, 26.0])


def to_config(schedule: Schedule) -> LengthConfig:
    """Thresholds stand for the shares."""
    return LengthConfig((1.0,) * NUM_LAYERS, tuple(None if share == 1 else share for share in schedule.shares))


def measure(config: LengthConfig, questions: range) -> Trial:
    shares = np.array([1.0 if threshold is None else threshold for threshold in config.thresholds])
    damage = (((1 / shares - 1) / LAYER_TOLERANCE) ** 3).sum()
    f1 = np.where(damage < TOLERANCE[questions.start : questions.stop], 100.0, 0.0)
    cost = float((0.4 * np.array([1, *shares[:-1]]) + 0.6 * shares).sum()) + 0.1 * len(config.selecting_layers)
    return Trial(config, tuple(f1.tolist()), macs=1e6 * cost, latency_ms=cost)


def run(
    path: Path,
    measure: RunCandidate = measure,
    *,
    seed: int = 0,
    max_evaluations: int | None = EVALUATIONS,
    deadline: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Trial, list[Outcome]]:
    """The trial of `full`, and what the search measured."""
    with Journal(path, {"seed": seed}) as journal:
        measurer = Measurer(measure, journal, num_layers=NUM_LAYERS, groups=GROUPS)
        found = search(
            SPACE, to_config, measurer, seed=seed, max_evaluations=max_evaluations, deadline=deadline, progress=progress
        )
    trials = [outcome.trial for outcome in found.outcomes if outcome.finished]
    assert all(len(trial.scores) == NUM_QUESTIONS for trial in trials)
    partial = [outcome.trial for outcome in found.outcomes if outcome.measured < 1 and not outcome.rejected]
    expected = pooled(trials, features_of(trials), measurer.full, partial, features_of(partial))
    assert [trial.config for trial in found.candidates] == [trial.config for trial in expected]
    assert [trial.score for trial in found.candidates] == pytest.approx([trial.score for trial in expected], abs=1e-6)
    return measurer.full, found.outcomes


def features_of(trials: list[Trial]) -> np.ndarray:
    shares = [[1.0 if threshold is None else threshold for threshold in trial.config.thresholds] for trial in trials]
    return SPACE.features(np.log(shares).reshape(-1, NUM_LAYERS))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return run(tmp_path_factory.mktemp("search") / "journal")[1]


def fastest(outcomes: list[Outcome], most_lost: float) -> float:
    """The latency of the fastest configuration whose upper bound on all questions is within `most_lost`."""
    return min(o.latency for o in outcomes if o.finished and o.loss.mean + o.margin <= most_lost)


@pytest.mark.parametrize("most_lost", [1.0, 2.5])
def test_search_finds_faster_configurations_than_it_starts_with(undisturbed: list[Outcome], most_lost: float) -> None:
    first = len(SPACE.known()) + 5
    assert fastest(undisturbed, most_lost) < 0.98 * fastest(undisturbed[:first], most_lost)


@pytest.mark.parametrize("most_lost", [0.5, 1.0, 2.5])
def test_time_is_spent_where_names_are_decided(undisturbed: list[Outcome], most_lost: float) -> None:
    """Most configurations run on few questions; few faster ones that would be within a limit are left at that."""
    finished = [outcome for outcome in undisturbed if outcome.finished]
    assert len(finished) < EVALUATIONS / 2
    questions = sum(len(outcome.trial.scores) for outcome in undisturbed)
    assert questions < EVALUATIONS * NUM_QUESTIONS / 2
    missed = []
    for outcome in undisturbed:
        if outcome.latency < fastest(undisturbed, most_lost) and not outcome.finished:
            whole = to_the_end(outcome.trial.config)
            if whole.loss.mean + whole.margin <= most_lost:
                missed.append(whole.latency / fastest(undisturbed, most_lost))
    assert len(missed) < EVALUATIONS / 10
    assert min(missed, default=1) > 0.9


def to_the_end(config: LengthConfig) -> Outcome:
    """The outcome of a configuration on all questions, whatever the search knew of it."""
    with TemporaryDirectory() as folder, Journal(Path(folder) / "journal", {}) as journal:
        measurer = Measurer(measure, journal, num_layers=NUM_LAYERS, groups=GROUPS)
        for _ in range(measurer.steps):
            outcome = measurer(config)
    return outcome


def test_each_configuration_is_measured_once_and_no_more_than_asked_for(tmp_path: Path) -> None:
    calls: list[tuple[LengthConfig, range]] = []

    def counting(config: LengthConfig, questions: range) -> Trial:
        calls.append((config, questions))
        return measure(config, questions)

    _, outcomes = run(tmp_path / "journal", counting)
    assert len(outcomes) == EVALUATIONS
    assert len(calls) == len(set(calls)) == STEPS + sum(outcome.steps for outcome in outcomes)
    assert {outcome.steps for outcome in outcomes} == set(range(1, STEPS + 1))


def test_seed_decides(tmp_path: Path, undisturbed: list[Outcome]) -> None:
    assert run(tmp_path / "same")[1] == undisturbed
    assert run(tmp_path / "other", seed=1)[1] != undisturbed


def test_progress_tells_the_front_so_far(tmp_path: Path) -> None:
    seen: list[Progress] = []
    _, outcomes = run(tmp_path / "journal", progress=seen.append, deadline=monotonic() + 1000)
    assert len(seen) == sum(outcome.steps for outcome in outcomes)
    assert sorted({progress.evaluations for progress in seen}) == list(range(1, EVALUATIONS + 1))
    for progress in seen:
        assert not any(outcome.rejected for outcome in progress.hopeful)
        assert sorted(outcome.latency for outcome in progress.hopeful) == [o.latency for o in progress.hopeful]
    assert sorted(map(id, seen[-1].hopeful)) == sorted(id(outcome) for outcome in outcomes if not outcome.rejected)
    left = [progress.seconds_left for progress in seen if progress.seconds_left is not None]
    assert len(left) == len(seen)
    assert 0 < left[-1] < left[0] < 1000


def test_nothing_begins_after_the_deadline(tmp_path: Path) -> None:
    full, outcomes = run(tmp_path / "none", max_evaluations=None, deadline=monotonic() - 1)
    assert full.score == 100
    assert outcomes == []

    def slow(config: LengthConfig, questions: range) -> Trial:
        sleep(0.02)
        return measure(config, questions)

    end = monotonic() + 1
    _, outcomes = run(tmp_path / "some", slow, max_evaluations=None, deadline=end)
    assert 0 < len(outcomes) < 50
    longer = run(tmp_path / "some", max_evaluations=len(outcomes))[1]  # time decides nothing but the end
    assert [o.trial.config for o in longer] == [o.trial.config for o in outcomes]
    for outcome, further in zip(outcomes, longer, strict=True):
        assert outcome.trial.scores == further.trial.scores[: len(outcome.trial.scores)]


def test_search_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="max_evaluations"):
        run(tmp_path / "journal", max_evaluations=None)


def test_search_ends_when_there_is_nothing_new(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal:
        outcomes = search(
            ScheduleSpace(NUM_LAYERS, LEARNT, selectable=[5]),
            lambda schedule: LengthConfig((*(1.0,) * 5, math.ceil(4 * schedule.shares[-1]) / 4)),
            Measurer(measure, journal, num_layers=NUM_LAYERS, groups=GROUPS),
            max_evaluations=1000,
        ).outcomes
    ratios = [outcome.trial.config.keep_ratios[-1] for outcome in outcomes]
    assert {0.25, 0.5, 0.75} <= set(ratios) <= {0.25, 0.5, 0.75, 1.0}
    assert len(ratios) == len(set(ratios))


def run_logged(folder: Path, log: Path) -> None:
    """Measure so slowly that there is time to be killed, and write down what was measured."""

    def logged(config: LengthConfig, questions: range) -> Trial:
        trial = measure(config, questions)
        sleep(0.002)
        with log.open("a") as file:
            file.write(json.dumps([config.keep_ratios, config.thresholds, questions.start, questions.stop]) + "\n")
        return trial

    run(folder / "journal", logged)


def lines(path: Path) -> list[str]:
    """Whole lines of a file that may not be there yet."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def test_killed_at_ten_random_moments_it_goes_on_to_the_same_end(tmp_path: Path, undisturbed: list[Outcome]) -> None:
    processes = multiprocessing.get_context("forkserver")  # imports once, and has no threads
    processes.set_forkserver_preload([search.__module__])
    moments = random.Random(0)
    total = STEPS + sum(outcome.steps for outcome in undisturbed)
    stops = sorted(moments.sample(range(1, total), 10))
    journalled: set[str] = set()
    for attempt, stop in enumerate(stops):
        log = tmp_path / f"log-{attempt}"
        process = processes.Process(target=run_logged, args=(tmp_path, log))
        process.start()
        while len(lines(tmp_path / "journal")) <= stop and process.is_alive():
            sleep(0.001)
        sleep(moments.uniform(0, 0.01))  # anywhere in a measurement, its journal entry or the fit of the surrogate
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert journalled.isdisjoint(lines(log))
        journalled = {json.loads(line)["key"] for line in lines(tmp_path / "journal")[1:]}
        assert len(journalled) >= stop
    rest: list[LengthConfig] = []

    def remembered(config: LengthConfig, questions: range) -> Trial:
        rest.append(config)
        return measure(config, questions)

    assert run(tmp_path / "journal", remembered)[1] == undisturbed
    assert len(rest) == total - len(journalled)
