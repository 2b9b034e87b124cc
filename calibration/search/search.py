"""Search for the length configurations with the best trade-offs of score against latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
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
from .front import NAMED_LIMITS, ONE_SIDED, front
from .pooling import pooled
from .schedules import Genes, Schedule, ScheduleSpace
from .surrogate import GaussianProcess, Values
from .trial import Trial

_RANDOM = 10  # schedules at the start, in addition to the known ones
_BATCH = 4  # measured before the surrogate is fitted again
_PATIENCE = 10  # batches without a new configuration until the search gives up
_AROUND = (0.75, 1.25)  # range of the random factor on the loss to aim at
_NEAREST = 5  # configurations that the loss to aim at is estimated from
_POPULATION, _GENERATIONS = 64, 15  # NSGA-II on predictions
_LEAST_ERROR, _LATENCY_ERROR = 0.15, 0.002

Predictor = Callable[[Genes], tuple[Values, Values]]
"""Predicts for each schedule the loss in points and the latency as a share of that of `full`."""


@dataclass(frozen=True)
class Progress:
    """State of a search that is running.

    Attributes:
        evaluations: Configurations measured so far, rejected ones included.
        front: The front so far, fastest first, `full` included.
        seconds_left: Time until the deadline; None without a deadline.
    """

    evaluations: int
    front: list[Trial]
    seconds_left: float | None


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        outcomes: All measurements in the order in which they were made, without that of `full`.
        candidates: The trials that were not rejected, with `pooled` scores: configurations are chosen from these.
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
    """Measure known and random schedules, then repeatedly those that are predicted to be the best.

    A Gaussian process predicts loss and latency of any schedule, NSGA-II finds the front of the predictions, and a
    few of its points are measured. Only the end depends on time: with the same seed and a `measurer` that gives the
    same results, a search of `max_evaluations` finds the same, also if it was killed and continues from its journal.

    Args:
        space: The schedules to try.
        to_config: Gives the length configuration of a schedule, always the same one.
        measurer: Measures configurations.
        seed: Seed for every random choice.
        max_evaluations: Configurations to measure, including those in the journal; None for no limit.
        deadline: Value of `time.monotonic` after which no measurement begins; None for no deadline.
        limits: Losses, in points, around which the search concentrates.
        progress: Called after each measurement.

    Raises:
        InvalidInputError: Neither `max_evaluations` nor `deadline` is given.
        StorageError: The journal cannot be written.
    """
    if max_evaluations is None and deadline is None:
        raise InvalidInputError("a search needs an end: give max_evaluations, a deadline or both")
    generator = np.random.default_rng(seed)
    outcomes: dict[LengthConfig, Outcome] = {}
    tried: dict[Schedule, tuple[Genes, Outcome]] = {}

    def ended() -> bool:
        return (max_evaluations is not None and len(outcomes) >= max_evaluations) or (
            deadline is not None and monotonic() >= deadline
        )

    def report() -> None:
        best = front([measurer.full, *(outcome.trial for outcome in outcomes.values() if not outcome.rejected)])
        progress(Progress(len(outcomes), best, None if deadline is None else max(0.0, deadline - monotonic())))

    def try_all(candidates: Genes) -> None:
        for genes in candidates:
            schedule = space.decode(genes)
            if ended():
                return
            if schedule in tried or min(schedule.shares) == 1:
                continue
            config = to_config(schedule)
            if config not in outcomes:
                outcomes[config] = measurer(config)
                report()
            tried[schedule] = genes, outcomes[config]

    try_all(np.vstack([space.known(), space.random(_RANDOM, generator)]))
    idle = 0
    while idle < _PATIENCE and not ended():
        count = len(outcomes)
        genes, results = zip(*tried.values(), strict=True)
        try_all(_promising(space, np.array(genes), results, limits, generator))
        if len(outcomes) == count:
            try_all(space.random(_BATCH, generator))
        idle = idle + 1 if len(outcomes) == count else 0
    genes_of = {o.trial.config: genes for genes, o in tried.values()}
    trials = [outcome.trial for outcome in outcomes.values() if not outcome.rejected]
    measured = np.array([genes_of[trial.config] for trial in trials]).reshape(len(trials), len(space.lower))
    return SearchResult(list(outcomes.values()), pooled(trials, space.features(measured), measurer.full))


def _promising(
    space: ScheduleSpace,
    genes: Genes,
    outcomes: Sequence[Outcome],
    limits: Sequence[float],
    generator: np.random.Generator,
) -> Genes:
    """New schedules that are predicted to be the fastest within some loss, given the `outcomes` of those in `genes`."""
    predict = _predictor(space, genes, outcomes)
    candidates = _front_of_predictions(space, predict, genes, seed=int(generator.integers(2**31)))
    candidates = candidates[~(candidates[:, None] == genes).all(-1).any(1)]
    loss, latency = predict(candidates)
    chosen = []
    for limit in generator.choice(limits, _BATCH):
        target = _loss_at(limit, outcomes) * generator.uniform(*_AROUND)
        if (loss <= target).any():
            best = np.argmin(np.where(loss <= target, latency, np.inf))
            chosen.append(best)
            loss[best] = np.inf
    return np.asarray(candidates[chosen])


def _loss_at(limit: float, outcomes: Sequence[Outcome]) -> float:
    """The mean loss of the configurations whose upper bound, which the limit applies to, is nearest to the limit."""
    full_runs = [outcome for outcome in outcomes if not outcome.rejected]
    nearest = sorted(full_runs, key=lambda outcome: abs(outcome.loss + ONE_SIDED * outcome.loss_error - limit))[
        :_NEAREST
    ]
    return fmean(outcome.loss for outcome in nearest) if nearest else limit / 2


def _predictor(space: ScheduleSpace, genes: Genes, outcomes: Sequence[Outcome]) -> Predictor:
    """Fit loss and latency to `outcomes`."""
    loss = np.array([outcome.loss for outcome in outcomes])
    # Losses span two orders of magnitude, and the small ones matter.
    shifted = np.maximum(loss, -1) + 1.5
    noise = np.maximum([outcome.loss_error for outcome in outcomes], _LEAST_ERROR) / shifted
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
