"""Choose a length configuration for a request with a budget so that those that wait behind it can meet theirs, too.

Nothing here looks at a clock: times are milliseconds from now, predicted by the latency table.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynamic_tinybert.runtime.budget import Candidate, Limits, by_accuracy, choose

_REMEMBERED = 128
"""Number of latest turns whose predictions are compared with what they took."""

_UPPER = 0.98
"""Share of turns that took no longer than predicted times `Slowness.upper`."""

_AT_FIRST = (*[1.0] * 7, 1.25)
"""What counts as measured before anything was: predictions are medians, see docs/budgets.md."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits.

    Attributes:
        ms: Predicted milliseconds of what is left of it, by the length configurations that it may run at.
        slack_ms: Milliseconds from now in which it should be answered; infinite without a budget.
        turns: Number of batches that are left of it.
    """

    ms: Mapping[str, float]
    slack_ms: float = math.inf
    turns: int = 1

    @property
    def fastest_ms(self) -> float:
        """Milliseconds at its fastest configuration; 0 if nothing is known."""
        return min(self.ms.values(), default=0.0)

    def at(self, name: str) -> float:
        """Milliseconds at a configuration, or at its slowest if it may not run at that one; 0 if nothing is known."""
        return self.ms[name] if name in self.ms else max(self.ms.values(), default=0.0)

    def part(self, ms: float, turns: int) -> float:
        """Of the milliseconds `ms` of all its turns, those of so many turns."""
        return ms * min(1, turns / self.turns)


class Slowness:
    """What turns took in proportion to their predictions, learnt from the latest ones.

    Attributes:
        typical: The mean proportion.
        upper: One that few turns exceed, at least `typical`.
    """

    def __init__(self) -> None:
        self._latest = deque(_AT_FIRST)
        self._sorted = sorted(_AT_FIRST)
        self._summarise()

    def learn(self, predicted_ms: float, measured_ms: float) -> None:
        """Take a turn into account; 0 as a prediction means that there was none."""
        if predicted_ms <= 0:
            return
        proportion = measured_ms / predicted_ms
        self._latest.append(proportion)
        insort(self._sorted, proportion)
        if len(self._latest) > _REMEMBERED:
            self._sorted.remove(self._latest.popleft())
        self._summarise()

    def _summarise(self) -> None:
        count = len(self._sorted)
        self.typical = sum(self._sorted) / count
        self.upper = max(self.typical, self._sorted[math.floor(_UPPER * count)])


def choose_under_pressure(
    own: Waiting, losses: Mapping[str, float | None], limits: Limits, others: Sequence[Waiting], slowness: Slowness
) -> str:
    """The length configuration of the request whose turn it is.

    It is the most accurate one with which this request is predicted to meet its budget, and all others in the queue
    theirs, if they run at the same configuration. Those that could not even if all ran at their fastest do not count.
    If there is none, it is the fastest. A request without a budget is not affected by others.

    Args:
        own: The request; its `ms` has the configurations that its `limits` allow.
        losses: Points of F1 that each configuration loses; None if unknown.
        limits: What its caller asks for.
        others: Those that wait, in the order of the queue.
        slowness: How predictions compare with what turns take.
    """
    candidates = [Candidate(name, ms, losses[name]) for name, ms in own.ms.items()]
    if limits.budget_ms is None:
        return choose(candidates, limits).candidate.name
    fastest = min(candidates, key=lambda c: c.ms).name
    hopeless = _late(own.part(own.ms[fastest], 1), [other.fastest_ms for other in others], others, slowness)
    for candidate in sorted(candidates, key=by_accuracy):
        between = math.fsum(other.part(other.at(candidate.name), own.turns - 1) for other in others)
        if slowness.upper * candidate.ms + slowness.typical * between > own.slack_ms:
            continue
        late = _late(own.part(candidate.ms, 1), [other.at(candidate.name) for other in others], others, slowness)
        if late <= hopeless:
            return candidate.name
    return fastest


def _late(own_ms: float, each_ms: Sequence[float], others: Sequence[Waiting], slowness: Slowness) -> set[int]:
    """The places of those that would be late, if each takes so long after one turn of all those before it."""
    late = set()
    total = own_ms
    for place, (other, ms) in enumerate(zip(others, each_ms, strict=True)):
        if slowness.upper * (total + ms) > other.slack_ms:
            late.add(place)
        total += other.part(ms, 1)
    return late


def is_hopeless(own: Waiting, ahead: Sequence[Waiting], running_ms: float, slowness: Slowness) -> bool:
    """Whether a request is predicted to be late even if it and all those ahead of it run at their fastest.

    One that is alone is always tried, so that there are turns to learn from when predictions have become too long.

    Args:
        own: The request.
        ahead: Those that wait before it.
        running_ms: Predicted milliseconds until the turn that is being taken ends.
        slowness: How predictions compare with what turns take.
    """
    if own.slack_ms == math.inf or not (ahead or running_ms):
        return False
    each = [*(other.part(other.fastest_ms, own.turns) for other in ahead), own.fastest_ms]
    return running_ms + slowness.upper * math.fsum(each) > own.slack_ms
