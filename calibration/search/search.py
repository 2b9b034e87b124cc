"""Search for the length configurations with the best trade-offs of score against latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig

from .candidate_runs import WORST_LOSS, Measurer, Outcome
from .contenders import contenders, loss_to_aim_at
from .front import NAMED_LIMITS
from .pooling import pooled
from .schedules import Genes, Schedule, ScheduleSpace
from .surrogate import GaussianProcess, Values
from .trial import Trial

_RANDOM = 5  # schedules at the start, in addition to the known ones
_BATCH = 4  # measured before the surrogate is fitted again
_ROUNDS = 2  # of contenders that are measured further, between two batches of new ones
_PATIENCE = 10  # batches without a new configuration until the search gives up
_AROUND = (0.75, 1.25)  # range of the random factor on the loss to aim at
_POPULATION, _GENERATIONS = 64, 15  # NSGA-II on predictions
_LEAST_ERROR, _LATENCY_ERROR = 0.15, 0.002

Predictor = Callable[[Genes], tuple[Values, Values]]
"""Predicts for each schedule the loss in points and the latency as a share of that of `full`."""


@dataclass(frozen=True)
class Progress:
    """State of a search that is running.

    Attributes:
        evaluations: Configurations measured so far, rejected ones included.
        hopeful: The outcomes so far that were not rejected, fastest first.
        seconds_left: Time until the deadline; None without a deadline.
    """

    evaluations: int
    hopeful: list[Outcome]
    seconds_left: float | None


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        outcomes: What each configuration showed, in the order in which they were first measured, without `full`.
        candidates: The trials of those that are finished, with `pooled` scores: configurations are chosen from these.
    """

    outcomes: list[Outcome]
    candidates: list[Trial]


def search(
    space: ScheduleSpace,
    to_config: Callable[[Schedule], LengthConfig],
    measurer: Measurer,
    *,
    seed: int = 0,
    max_evaluations: int | None = None,
    deadline: float | None = None,
    limits: Sequence[float] = tuple(NAMED_LIMITS.values()),
    progress: Callable[[Progress], None] = lambda _: None,
) -> SearchResult:
    """Measure known and random schedules on few examples, then those further on which a name may depend, and new ones.

    A Gaussian process predicts loss and latency of any schedule. In turn, configurations that may become the fastest
    within a limit are measured on more examples (`contenders`), and schedules that are predicted to be the fastest
    within a limit, from the front of predictions that NSGA-II finds, are measured on few. Only the end depends on time:
    with the same seed and a `measurer` that gives the same results, a search of `max_evaluations` finds the same, also
    if it was killed and continues from its journal.

    Args:
        space: The schedules to try.
        to_config: Gives the length configuration of a schedule, always the same one.
        measurer: Measures configurations.
        seed: Seed for every random choice.
        max_evaluations: Configurations to try, including those in the journal; None for no limit. The search then goes
            on with these until no further measurement would decide about a name.
        deadline: Value of `time.monotonic` after which no measurement begins; None for no deadline.
        limits: Largest upper bounds of the losses of named configurations, in points.
        progress: Called after each measurement.

    Raises:
        InvalidInputError: Neither `max_evaluations` nor `deadline` is given.
        StorageError: The journal cannot be written.
    """
    if max_evaluations is None and deadline is None:
        raise InvalidInputError("a search needs an end: give max_evaluations, a deadline or both")
    generator = np.random.default_rng(seed)
    outcomes: dict[LengthConfig, Outcome] = {}
    tried: dict[Schedule, tuple[Genes, LengthConfig]] = {}

    def too_late() -> bool:
        return deadline is not None and monotonic() >= deadline

    def enough() -> bool:
        return max_evaluations is not None and len(outcomes) >= max_evaluations

    def measure(config: LengthConfig) -> None:
        outcomes[config] = measurer(config)
        hopeful = [outcome for outcome in outcomes.values() if not outcome.rejected]
        hopeful.sort(key=lambda outcome: outcome.latency)
        progress(Progress(len(outcomes), hopeful, None if deadline is None else max(0.0, deadline - monotonic())))

    def try_all(candidates: Genes) -> None:
        for genes in candidates:
            schedule = space.decode(genes)
            if enough() or too_late():
                return
            if schedule in tried or min(schedule.shares) == 1:
                continue
            config = to_config(schedule)
            if config not in outcomes:
                measure(config)
            tried[schedule] = genes, config

    def knowledge() -> tuple[Genes, list[Outcome], Predictor]:
        genes, configs = zip(*tried.values(), strict=True)
        results = [outcomes[config] for config in configs]
        return np.array(genes), results, _predictor(space, np.array(genes), results)

    try_all(np.vstack([space.known(), space.random(_RANDOM, generator)]))
    idle = 0
    while tried and idle < _PATIENCE and not too_late():
        further: list[Outcome] = []
        for _ in range(_ROUNDS):
            genes, results, predict = knowledge()
            chosen = contenders(results, predict(genes)[0], limits)
            for outcome in chosen:
                if not too_late():
                    measure(outcome.trial.config)
            further += chosen
        if enough():
            if not further:
                break
            continue
        count = len(outcomes)
        genes, results, predict = knowledge()
        try_all(_promising(space, genes, results, predict, limits, generator))
        if len(outcomes) == count:
            try_all(space.random(_BATCH, generator))
        idle = 0 if further or len(outcomes) > count else idle + 1
    genes_of = {config: genes for genes, config in tried.values()}

    def features(trials: Sequence[Trial]) -> Values:
        genes = np.array([genes_of[trial.config] for trial in trials]).reshape(len(trials), len(space.lower))
        return space.features(genes)

    finished = [outcome.trial for outcome in outcomes.values() if outcome.finished]
    partial = [outcome.trial for outcome in outcomes.values() if outcome.measured < 1 and not outcome.rejected]
    candidates = pooled(finished, features(finished), measurer.full, partial, features(partial))
    return SearchResult(list(outcomes.values()), candidates)


def _promising(
    space: ScheduleSpace,
    genes: Genes,
    outcomes: Sequence[Outcome],
    predict: Predictor,
    limits: Sequence[float],
    generator: np.random.Generator,
) -> Genes:
    """New schedules that are predicted to be the fastest within some loss, given the `outcomes` of those in `genes`."""
    candidates = _front_of_predictions(space, predict, genes, seed=int(generator.integers(2**31)))
    candidates = candidates[~(candidates[:, None] == genes).all(-1).any(1)]
    loss, latency = predict(candidates)
    chosen = []
    for limit in generator.choice(limits, _BATCH):
        target = loss_to_aim_at(limit, outcomes) * generator.uniform(*_AROUND)
        if (loss <= target).any():
            best = np.argmin(np.where(loss <= target, latency, np.inf))
            chosen.append(best)
            loss[best] = np.inf
    return np.asarray(candidates[chosen])


def _predictor(space: ScheduleSpace, genes: Genes, outcomes: Sequence[Outcome]) -> Predictor:
    """Fit loss and latency to `outcomes`."""
    loss = np.array([outcome.loss.mean for outcome in outcomes])
    # Losses span two orders of magnitude, and the small ones matter.
    shifted = np.maximum(loss, -1) + 1.5
    noise = np.maximum([outcome.loss.error for outcome in outcomes], _LEAST_ERROR) / shifted
    points = space.features(genes)
    log_loss = GaussianProcess(points, np.log(shifted), noise)
    latency = GaussianProcess(points, np.array([o.latency for o in outcomes]), np.full(len(genes), _LATENCY_ERROR))

    def predict(genes: Genes) -> tuple[Values, Values]:
        points = space.features(genes)
        return np.exp(log_loss(points)) - 1.5, latency(points)

    return predict


def _front_of_predictions(space: ScheduleSpace, predict: Predictor, start: Genes, seed: int) -> Genes:
    """Schedules on the front of predicted loss against predicted latency, found by NSGA-II from `start`."""
    problem = Problem(n_var=start.shape[1], n_obj=2, n_ieq_constr=1, xl=space.lower, xu=space.upper)
    algorithm = NSGA2(pop_size=_POPULATION, sampling=start)
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    for _ in range(_GENERATIONS):
        population = algorithm.ask()
        genes = space.repair(population.get("X"))
        population.set("X", genes)
        loss, latency = predict(genes)
        values = StaticProblem(problem, F=np.column_stack([loss, latency]), G=loss[:, None] - WORST_LOSS)
        algorithm.tell(infills=Evaluator().eval(values, population))
    return np.unique(algorithm.pop.get("X"), axis=0)
