"""How fast are the named length configurations that each strategy of search finds?

    python -m benchmarks.selection.search_strategies [BUDGET [LANDSCAPES]]

Each strategy may measure all questions BUDGET (80) times on each of LANDSCAPES (8) synthetic models of six layers,
with two seeds. `step_by_step` is the package's search; `at_once` measures each configuration on all questions at
once, unless it is hopeless, and starts from schedules that select in many layers. A synthetic question is answered as
by `full` until the damage that the layers do adds up to more than it tolerates; loss, its spread over questions and
the cost of layers and scorers are like those of MiniLM on SQuAD. The table shows the latency of the named
configurations as a share of that of `full`, and the F1 that they lose on 8,000 other questions, where configurations
that were chosen by chance lose more. They are chosen both by the measurements of each configuration alone and by
those of all of them together. Then come the mean numbers of configurations that were tried, and of those that were
measured on all questions.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, count, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from dynamic_tinybert.calibration.search.candidate_runs import WORST_LOSS, Measurer, Outcome
from dynamic_tinybert.calibration.search.front import NAMED_LIMITS, choose_named, front
from dynamic_tinybert.calibration.search.pooling import pooled
from dynamic_tinybert.calibration.search.schedules import Schedule, ScheduleSpace
from dynamic_tinybert.calibration.search.search import search
from dynamic_tinybert.calibration.search.seeds import ATTENTION, LEARNT
from dynamic_tinybert.calibration.search.surrogate import Values
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.length_config import LengthConfig

from benchmarks.common import argument_parser

CHOOSING, OTHERS = range(1000), range(1000, 9000)
SPACE = ScheduleSpace(6, LEARNT, most_selecting=3)
MANY_LAYERS = ScheduleSpace(6, ATTENTION)
GROUPS = [str(question) for question in CHOOSING]  # each question is of its own


def to_config(schedule: Schedule) -> LengthConfig:
    """The configuration whose thresholds are, in this synthetic world, the shares themselves."""
    return LengthConfig((1.0,) * 6, tuple(None if share == 1 else share for share in schedule.shares))


class OutOfBudgetError(Exception):
    """The budget of questions is used up."""


class Landscape:
    """A synthetic model and its questions."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        number = OTHERS.stop
        self.tolerance_of_layers = np.array([2.2, 2.0, 2.6, 4.6, 11, 26]) * np.exp(random.normal(0, 0.25, 6))
        self.power = random.uniform(2.2, 3.5)
        self.scorer = random.uniform(0.02, 0.07), random.uniform(0.03, 0.08)
        self.call = random.uniform(0.1, 0.6)
        self.right = np.where(random.random(number) < 0.72, 100, random.choice([0, 50, 67, 80], number))
        self.wrong = np.where(random.random(number) < 0.8, 0, random.choice([40, 67, 100], number))
        self.tolerance = random.exponential(75, number)
        self.weight = np.exp(random.normal(-0.32, 0.8, (number, 6)))
        self.hardness = np.exp(random.normal(0, 0.18, (number, 6)) + random.normal(0, 0.28, (number, 1)))
        self.hardness /= self.hardness.mean(0)  # the share that a question keeps, relative to the mean share

    def measure(self, config: LengthConfig, questions: range) -> Trial:
        part = slice(questions.start, questions.stop)
        shares = np.array([1.0 if threshold is None else threshold for threshold in config.thresholds])
        wanted = np.where(shares < 1, self.hardness[part] * shares, 1.0)
        kept = np.minimum(wanted, config.keep_ratios)
        damage = ((1 / shares - 1) * wanted / kept / self.tolerance_of_layers) ** self.power
        broken = (damage * self.weight[part]).sum(1) > self.tolerance[part]
        f1 = np.where(broken, self.wrong[part], self.right[part])
        if min(shares) < 1:  # a few answers change for better or worse without a reason
            random = np.random.default_rng(
                [*(int(1000 * share) for share in (*shares, *config.keep_ratios)), part.start]
            )
            answered = f1 > 0
            odds = 0.03 * np.where(answered, 1 - answered.mean(), answered.mean())
            f1 = np.where(random.random(len(f1)) < odds, np.where(answered, 0, 85), f1)
        entering = np.column_stack([np.ones(len(f1)), kept[:, :-1]])
        selects = np.diff(shares, prepend=1) < 0
        scoring = selects * (self.scorer[0] + self.scorer[1] * entering)
        cost = self.call + (0.35 * entering + 0.08 * entering**2 + 0.55 * kept + scoring).sum(1)
        return Trial(config, tuple(f1.tolist()), macs=float(cost.mean()), latency_ms=float(cost.mean()))


class Recorder(Measurer):
    """A `Measurer` that keeps all outcomes, and stops when the budget of questions is used up.

    Attributes:
        at_once: Whether each call takes all steps, unless a configuration is hopeless.
    """

    at_once = True

    def __init__(self, landscape: Landscape, budget: float, journal: Journal) -> None:
        self.outcomes: list[Outcome] = []
        left = budget * len(CHOOSING)

        def measure(config: LengthConfig, questions: range) -> Trial:
            nonlocal left
            if left < len(questions):
                raise OutOfBudgetError
            left -= len(questions)
            return landscape.measure(config, questions)

        super().__init__(measure, journal, num_layers=6, groups=GROUPS)

    def __call__(self, config: LengthConfig) -> Outcome:
        outcome = super().__call__(config)
        while self.at_once and not outcome.rejected and not outcome.finished:
            outcome = super().__call__(config)
        self.outcomes.append(outcome)
        return outcome


def random_schedules(measurer: Recorder, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for genes in chain(SPACE.known(), (SPACE.random(1, generator)[0] for _ in count())):
        measurer(to_config(SPACE.decode(genes)))


def plain_nsga2(measurer: Recorder, seed: int, offspring: int = 12) -> None:
    """NSGA-II on the measurements themselves."""
    first = np.vstack([SPACE.known(), SPACE.random(10, np.random.default_rng(seed))])
    problem = Problem(n_var=first.shape[1], n_obj=2, n_ieq_constr=1, xl=SPACE.lower, xu=SPACE.upper)
    algorithm = NSGA2(pop_size=24, n_offsprings=offspring, sampling=first)
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    while True:
        population = algorithm.ask()
        genes = SPACE.repair(population.get("X"))
        population.set("X", genes)
        outcomes = [measurer(to_config(SPACE.decode(row))) for row in genes]
        objectives = np.array([[outcome.loss.mean, outcome.latency] for outcome in outcomes])
        values = StaticProblem(problem, F=objectives, G=objectives[:, :1] - WORST_LOSS)
        algorithm.tell(infills=Evaluator().eval(values, population))


def local_steps(measurer: Recorder, seed: int) -> None:
    """The start of plain NSGA-II, then steps in one or two shares from points of the front."""
    generator = np.random.default_rng(seed)
    tried = {}
    todo = list(np.vstack([SPACE.known(), SPACE.random(10, generator)]))
    while True:
        for genes in todo:
            schedule = SPACE.decode(genes)
            if schedule not in tried:
                tried[schedule] = genes, measurer(to_config(schedule))
        by_trial = {id(outcome.trial): genes for genes, outcome in tried.values()}
        best = front(o.trial for _, o in tried.values() if not o.rejected and o.loss.mean < 4)
        genes = by_trial[id(best[generator.integers(len(best))])].copy()
        for layer in generator.integers(6, size=generator.integers(1, 3)):
            genes[layer] += generator.choice([-0.2, -0.1, -0.05, 0.05, 0.1, 0.2])
            genes[:layer] = np.maximum(genes[:layer], genes[layer])
        genes[-1] += generator.integers(-1, 2)
        todo = list(SPACE.repair(genes[None]))


def at_once(measurer: Recorder, seed: int) -> None:
    """The package's search without its steps and its seeds."""
    search(MANY_LAYERS, to_config, measurer, seed=seed, max_evaluations=100_000)


def step_by_step(measurer: Recorder, seed: int) -> None:
    """The package's search."""
    measurer.at_once = False
    search(SPACE, to_config, measurer, seed=seed, max_evaluations=100_000)


STRATEGIES: tuple[Callable[[Recorder, int], None], ...] = (
    random_schedules,
    plain_nsga2,
    local_steps,
    at_once,
    step_by_step,
)


def as_measured(measurer: Recorder) -> list[Trial]:
    return list({o.trial.config: o.trial for o in measurer.outcomes if o.finished}.values())


def as_pooled(measurer: Recorder) -> list[Trial]:
    trials = as_measured(measurer)
    last = {o.trial.config: o for o in measurer.outcomes}.values()
    partial = [o.trial for o in last if o.measured < 1 and not o.rejected]
    return pooled(trials, features_of(trials), measurer.full, partial, features_of(partial))


def features_of(trials: list[Trial]) -> Values:
    shares = [[1.0 if threshold is None else threshold for threshold in t.config.thresholds] for t in trials]
    return SPACE.features(np.minimum.accumulate(np.log(shares).reshape(-1, 6), axis=1))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("budget", nargs="?", type=float, default=80.0)
    parser.add_argument("landscapes", nargs="?", type=int, default=8)
    arguments = parser.parse_args()
    print(f"{'':30}" + "".join(f"{name:>20}" for name in NAMED_LIMITS) + f"{'tried':>8}{'on all':>8}")
    for strategy in STRATEGIES:
        found: defaultdict[str, list[list[tuple[float, float]]]] = defaultdict(list)
        counts = []
        for number, seed in product(range(arguments.landscapes), range(2)):
            landscape = Landscape(number)
            with TemporaryDirectory() as folder, Journal(Path(folder) / "journal", {}) as journal:
                measurer = Recorder(landscape, arguments.budget, journal)
                with suppress(OutOfBudgetError):
                    strategy(measurer, seed)
            counts.append((len({o.trial.config for o in measurer.outcomes}), len(as_measured(measurer))))
            for candidates in (as_measured, as_pooled):
                named = choose_named(front(candidates(measurer)), measurer.full)
                chosen = [named.get(name, measurer.full) for name in NAMED_LIMITS]
                found[candidates.__name__].append([on_others(landscape, trial) for trial in chosen])
        for name, figures in found.items():
            means = np.mean(figures, axis=0)
            shown = "".join(f"{latency:11.4f} (-{lost:.2f})" for latency, lost in means)
            tried, on_all = np.mean(counts, axis=0)
            print(f"{strategy.__name__:18}{name:12}{shown}{tried:8.0f}{on_all:8.0f}", flush=True)


def on_others(landscape: Landscape, trial: Trial) -> tuple[float, float]:
    """Latency as a share of that of `full`, and F1 lost, on questions that nothing was chosen on."""
    full = landscape.measure(LengthConfig.full(6), OTHERS)
    other = landscape.measure(trial.config, OTHERS)
    return other.latency_ms / full.latency_ms, full.score - other.score


if __name__ == "__main__":
    main()
