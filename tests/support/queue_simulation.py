"""A simulated queue of one server, whose requests run at length configurations that a policy chooses. No clock."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dynamic_tinybert.runtime.budget import Limits
from dynamic_tinybert.serving.learnt import Price, Slowness, reserve_against_lateness
from dynamic_tinybert.serving.pressure import Queue, Waiting, choose_under_pressure, is_at_risk, is_hopeless

SPEED = {"full": 1.0, "accurate": 0.81, "balanced": 0.75, "fast": 0.53}
"""Time of each configuration against `full`, as of the embedded bundle."""

LOSSES: Mapping[str, float | None] = {"full": 0.0, "accurate": 0.37, "balanced": 0.43, "fast": 1.48}
LENGTHS_MS = (12.0, 25.0, 40.0, 44.0, 48.0, 60.0)
"""Milliseconds that requests take at `full`."""


@dataclass
class Outcome:
    """What became of the requests."""

    met: int = 0
    late: int = 0
    refused: int = 0
    without_budget: Counter[str] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    longest_queue: int = 0

    @property
    def share_met(self) -> float:
        """Of the accepted requests with a budget."""
        return self.met / max(1, self.met + self.late)


def simulate(
    load: float,
    *,
    requests: int = 4000,
    budget_ms: float | None = 4 * 42.0,
    share_with_budget: float = 1.0,
    refuses: bool = True,
    noise: float = 0.15,
    stalls: float = 0.0,
    slower: float = 1.0,
    most: int = 128,
    seed: int = 0,
) -> Outcome:
    """Poisson arrivals at `load` times what `full` can serve.

    Args:
        load: Against the capacity of `full`.
        requests: Their number.
        budget_ms: Of those that have one.
        share_with_budget: How many of the requests have one.
        refuses: Whether a request that cannot meet its budget is refused, as with a timeout.
        noise: Standard deviation of the logarithm of what turns take in proportion to the prediction.
        stalls: Share of the turns that take three times as long, as when another process has a core for a while.
        slower: What turns take in proportion to the prediction, in the median.
        most: Requests that may wait.
        seed: Of the random numbers.
    """
    generator = random.Random(seed)
    mean = slower * sum(LENGTHS_MS) / len(LENGTHS_MS)
    now = free = 0.0
    arrivals = []
    for _ in range(requests):
        now += generator.expovariate(load / mean)
        budget = budget_ms if generator.random() < share_with_budget else None
        arrivals.append((now, generator.choice(LENGTHS_MS), budget))
    queue: deque[tuple[float, float, float | None]] = deque()
    at_risk: set[tuple[float, float, float | None]] = set()
    slowness, outcome = Slowness(), Outcome()
    lateness, price = reserve_against_lateness(), Price()

    def waiting(request: tuple[float, float, float | None], at: float) -> Waiting:
        arrived, full_ms, budget = request
        if budget is None:
            return Waiting({"full": [full_ms]})
        left_ms = arrived + budget - at
        ms = {name: [full_ms * share] for name, share in SPEED.items()}
        return Waiting(ms, (1 - lateness.share) * left_ms, left_ms if refuses else math.inf)

    def choice(request: tuple[float, float, float | None], at: float) -> str:
        arrived, _, budget = request
        if budget is None:
            return "full"
        own, others = waiting(request, at), [waiting(other, at) for other in queue]
        if not others:
            own = replace(own, slack_ms=arrived + budget - at)
        price.note(sum(own.slowest) - sum(own.fastest))
        return choose_under_pressure(own, LOSSES, Limits(budget, 100), Queue(others, slowness), price)

    def serve(until: float) -> None:
        nonlocal free
        while queue and max(free, queue[0][0]) < until:
            request = queue.popleft()
            arrived, full_ms, budget = request
            start = max(free, arrived)
            left_ms = math.inf if budget is None else arrived + budget - start
            if refuses and queue and slowness.typical * full_ms * SPEED["fast"] > left_ms:  # alone it is tried
                outcome.late += 1
                lateness.learn(happened=True)
                continue
            name = choice(request, start)
            predicted = full_ms * SPEED[name]
            took = predicted * slower * generator.lognormvariate(0, noise) * (3 if generator.random() < stalls else 1)
            slowness.learn(predicted, took)
            free = start + took
            if budget is None:
                outcome.without_budget[name] += 1
                continue
            outcome.chosen[name] += 1
            late = free > arrived + budget
            outcome.met += not late
            outcome.late += late
            if refuses and (late or request in at_risk):  # where nothing is promised, nothing is learnt
                lateness.learn(happened=late)

    for request in arrivals:
        at = request[0]
        serve(at)
        ahead = [waiting(other, at) for other in queue]
        own, running_ms = waiting(request, at), max(0.0, free - at)
        hopeless = refuses and is_hopeless(own, ahead, running_ms, slowness)
        if refuses and is_at_risk(own, ahead, running_ms, slowness):
            at_risk.add(request)
            price.learn(refused=hopeless)
        if hopeless or len(queue) >= most:
            outcome.refused += 1
        else:
            queue.append(request)
        outcome.longest_queue = max(outcome.longest_queue, len(queue))
    serve(float("inf"))
    return outcome
