"""Choose a length configuration for a request with a budget so that those that wait behind it can meet theirs, too.

Nothing here looks at a clock: times are milliseconds from now, predicted by the latency table.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dynamic_tinybert.runtime.budget import Candidate, Limits, choose

_REMEMBERED = 128
"""Number of latest turns whose predictions are compared with what they took."""

_UPPER = 0.98
"""Share of turns that took no longer than predicted times `Slowness.upper`."""

_WEIGHT = 0.05
"""Weight of the latest request in the mean of what requests can save."""

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


class Reserve:
    """A share of the time that requests have, which is left unused so that something happens to few of them.

    Each one to which it happens raises the reserve, each other one lowers it a little, in such a proportion that in the
    long run it happens to the wanted share of them, whatever is the cause (adaptive conformal inference, Gibbs and
    Candès 2021, https://arxiv.org/abs/2106.00170).

    Attributes:
        share: Between 0 and the largest one.
    """

    def __init__(self, wanted: float, *, step: float, first: float, largest: float) -> None:
        """Begin with a reserve.

        Args:
            wanted: Share of the requests to which it may happen.
            step: By how much one to which it happens raises the reserve.
            first: The reserve before anything was learnt.
            largest: The largest one.
        """
        self.share = first
        self._wanted, self._step, self._largest = wanted, step, largest

    def learn(self, *, happened: bool) -> None:
        """Take a request into account."""
        self.share = min(max(self.share + self._step * (happened - self._wanted), 0.0), self._largest)


def reserve_against_lateness() -> Reserve:
    """The reserve of all requests, so that few of the accepted are late."""
    return Reserve(0.003, step=0.05, first=0.5, largest=0.7)


class Price:
    """What a millisecond costs, in points of F1: nothing while nothing is refused.

    At a price, all requests take configurations that give much accuracy for their time. Without one, those that find
    nobody waiting take the most accurate one, and those behind them the fastest, which loses more.

    Each refusal raises the price, so that in the long run few are refused, up to what a millisecond brings in the mean
    between the fastest and the most accurate configuration. Only while more than a third is refused, it rises further,
    until all take the fastest one.
    """

    def __init__(self) -> None:
        self._shares = (  # of that mean
            Reserve(0.02, step=0.05, first=0.0, largest=1.0),
            Reserve(0.33, step=0.05, first=0.0, largest=9.0),
        )
        self._saved_ms = 0.0  # by the fastest configuration against the slowest, in the mean of the latest requests

    def learn(self, *, refused: bool) -> None:
        """Take a request into account."""
        for share in self._shares:
            share.learn(happened=refused)

    def of_ms(self, candidates: Sequence[Candidate]) -> float:
        """The price for a request that may run at these configurations, whose losses are all known."""
        times, losses = [c.ms for c in candidates], [c.f1_loss or 0.0 for c in candidates]
        saved_ms, points = max(times) - min(times), max(losses) - min(losses)
        self._saved_ms += (_WEIGHT if self._saved_ms else 1.0) * (saved_ms - self._saved_ms)
        share = sum(own.share for own in self._shares)
        return share * points / self._saved_ms if self._saved_ms else 0.0


def choose_under_pressure(
    own: Waiting,
    losses: Mapping[str, float | None],
    limits: Limits,
    others: Sequence[Waiting],
    slowness: Slowness,
    price: Price | None = None,
) -> str:
    """The length configuration of the request whose turn it is.

    Of those with which this request is predicted to meet its budget, and all others in the queue theirs, if they run at
    the same configuration, it is the one that loses least, its time being counted at a price. Others that could not
    meet their budget even if all ran at their fastest do not count. If there is none, it is the fastest.
    A request without a budget is not affected by others.

    Args:
        own: The request; its `ms` has the configurations that its `limits` allow.
        losses: Points of F1 that each configuration loses; None if unknown.
        limits: What its caller asks for.
        others: Those that wait, in the order of the queue.
        slowness: How predictions compare with what turns take.
        price: What time costs; None for nothing.
    """
    candidates = [Candidate(name, ms, losses[name]) for name, ms in own.ms.items()]
    if limits.budget_ms is None:
        return choose(candidates, limits).candidate.name
    candidates = _with_losses(candidates)
    fastest = min(candidates, key=lambda c: c.ms).name
    fastest_ms = [other.fastest_ms for other in others]
    hopeless = _late(own.part(own.ms[fastest], 1), fastest_ms, others, slowness)
    of_ms = price.of_ms(candidates) if price else 0.0
    for candidate in sorted(candidates, key=lambda c: ((c.f1_loss or 0.0) + of_ms * c.ms, c.ms)):
        between = math.fsum(other.part(other.at(candidate.name), own.turns - 1) for other in others)
        if slowness.upper * candidate.ms + slowness.typical * between > own.slack_ms:
            continue
        each_ms = [other.at(candidate.name) for other in others]
        if _late(own.part(candidate.ms, 1), each_ms, others, slowness) <= hopeless:
            return candidate.name
    return fastest


def _with_losses(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, with a guess where the loss is unknown: more than all that are known, and more for less time."""
    most = max((c.f1_loss for c in candidates if c.f1_loss is not None), default=0.0)
    slowest_ms = max(c.ms for c in candidates)
    guess = [most + (1 if c.ms == 0 else slowest_ms / c.ms) for c in candidates]
    return [c if c.f1_loss is not None else replace(c, f1_loss=own) for c, own in zip(candidates, guess, strict=True)]


def may_join(batch: Sequence[Waiting], joining: Waiting, others: Sequence[Waiting], slowness: Slowness) -> bool:
    """Whether a request may join a batch that others wait for: nobody is late who would not be without it.

    Args:
        batch: The requests of the batch; their `ms` has the configuration chosen for each, and no other.
        joining: The one to be added, likewise.
        others: All that wait, in the order of the queue, without `joining`.
        slowness: How predictions compare with what turns take.
    """
    alone_ms = math.fsum(one.part(one.fastest_ms, 1) for one in batch)
    together_ms = alone_ms + joining.part(joining.fastest_ms, 1)  # less, but nobody knows how much
    if any(slowness.typical * alone_ms <= one.slack_ms < slowness.typical * together_ms for one in batch):
        return False
    each_ms = [other.fastest_ms for other in others]
    return _late(together_ms, each_ms, others, slowness) <= _late(alone_ms, each_ms, others, slowness)


def _late(own_ms: float, each_ms: Sequence[float], others: Sequence[Waiting], slowness: Slowness) -> set[int]:
    """The places of those that would be late, if each takes so long after one turn of all those before it."""
    late = set()
    total = own_ms
    for place, (other, ms) in enumerate(zip(others, each_ms, strict=True)):
        if slowness.typical * (total + ms) > other.slack_ms:
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
    total_ms = 0.0
    for other in ahead:
        if running_ms + slowness.typical * (total_ms + other.fastest_ms) <= other.slack_ms:  # else it will be given up
            total_ms += other.part(other.fastest_ms, own.turns)
    return running_ms + slowness.typical * (total_ms + own.fastest_ms) > own.slack_ms
