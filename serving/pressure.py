"""Choose a length configuration for a request with a budget so that those that wait behind it can meet theirs, too.

Nothing here looks at a clock: times are milliseconds from now, predicted by the latency table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.budget import Candidate, Limits, choose

from .learnt import LARGEST_RESERVE, Price, Slowness

_STALL = 3.0
"""What a few turns in a hundred take in proportion to the others, when another process has a core meanwhile."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits.

    Attributes:
        ms: Predicted milliseconds of each of its batches that are left, by the length configurations that it may run
            at; empty if nothing is known.
        slack_ms: Milliseconds from now in which it should be answered; infinite if it has time.
        deadline_ms: Milliseconds from now after which it is given up; infinite without a deadline.
    """

    ms: Mapping[str, Sequence[float]]
    slack_ms: float = math.inf
    deadline_ms: float = math.inf

    @property
    def turns(self) -> int:
        """Number of its batches, at least 1."""
        return max([1, *map(len, self.ms.values())])

    @property
    def fastest(self) -> Sequence[float]:
        """Its batches at its fastest configuration."""
        return min(self.ms.values(), key=sum, default=())

    @property
    def slowest(self) -> Sequence[float]:
        """Its batches at its slowest configuration."""
        return max(self.ms.values(), key=sum, default=())

    def at(self, name: str) -> Sequence[float]:
        """Its batches at a configuration, or at its slowest if it may not run at that one."""
        own = self.ms.get(name)
        return self.slowest if own is None else own


class Queue:
    """Those that wait, in order, as one turn sees them.

    A turn asks for many choices. What does not depend on who asks is computed once, or the choices would take longer
    than the model.
    """

    def __init__(self, waiting: Sequence[Waiting], slowness: Slowness) -> None:
        """Look at a queue.

        Args:
            waiting: Those that wait, in order.
            slowness: How predictions compare with what turns take.
        """
        self.waiting = waiting
        self.slowness = slowness
        self._slack_ms = np.array([one.slack_ms for one in waiting])
        self._here = np.ones(len(waiting), bool)
        self._ms: dict[str | None, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}

    def take(self, place: int) -> None:
        """Count one no more."""
        self._here[place] = False

    def is_empty(self, without: int | None = None) -> bool:
        """Whether nobody counts, but the one at a place."""
        return not self._without(without).any()

    def late(self, own_ms: float, name: str | None, without: int | None = None) -> npt.NDArray[np.bool_]:
        """Who would be late, if each takes its time after one turn of all those before it.

        Args:
            own_ms: Milliseconds of the turn that all wait for.
            name: The configuration that all run at; None for the fastest of each.
            without: Place of one that does not count.
        """
        if name not in self._ms:
            batches = [one.fastest if name is None else one.at(name) for one in self.waiting]
            self._ms[name] = np.array([sum(own) for own in batches]), np.array([sum(own[:1]) for own in batches])
        all_ms, turn_ms = self._ms[name]
        here = self._without(without)
        turn_ms = turn_ms * here
        end_ms = own_ms + (np.cumsum(turn_ms) - turn_ms) + all_ms
        late: npt.NDArray[np.bool_] = here & (self.slowness.typical * end_ms > self._slack_ms)
        return late

    def between(self, name: str, turns: int, without: int | None = None) -> float:
        """Milliseconds of all, at a configuration, that are run while a request has so many further turns."""
        if not turns:
            return 0.0
        here = self._without(without)
        return math.fsum(sum(one.at(name)[:turns]) for one, counts in zip(self.waiting, here, strict=True) if counts)

    def _without(self, place: int | None) -> npt.NDArray[np.bool_]:
        if place is None:
            return self._here
        here = self._here.copy()
        here[place] = False
        return here


def choose_under_pressure(
    own: Waiting,
    losses: Mapping[str, float | None],
    limits: Limits,
    queue: Queue,
    price: Price | None = None,
    place: int | None = None,
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
        queue: Those that wait.
        price: What time costs; None for nothing.
        place: Its own place, if it is in the queue.
    """
    candidates = [Candidate(name, math.fsum(ms), losses[name]) for name, ms in own.ms.items()]
    if limits.budget_ms is None:
        return choose(candidates, limits).candidate.name
    candidates = _with_losses(candidates)
    slowness, fastest = queue.slowness, min(candidates, key=lambda c: c.ms).name
    hopeless = queue.late(own.ms[fastest][0], None, place)
    of_ms = price.of_ms(candidates) if price else 0.0
    for candidate in sorted(candidates, key=lambda c: ((c.f1_loss or 0.0) + of_ms * c.ms, c.ms)):
        between_ms = queue.between(candidate.name, own.turns - 1, place)
        if slowness.upper * candidate.ms + slowness.typical * between_ms > own.slack_ms:
            continue
        if not (queue.late(own.ms[candidate.name][0], candidate.name, place) & ~hopeless).any():
            return candidate.name
    return fastest


def _with_losses(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, with a guess where the loss is unknown: more than all that are known, and more for less time."""
    most = max((c.f1_loss for c in candidates if c.f1_loss is not None), default=0.0)
    slowest_ms = max(c.ms for c in candidates)
    guess = [most + (1 if c.ms == 0 else slowest_ms / c.ms) for c in candidates]
    return [c if c.f1_loss is not None else replace(c, f1_loss=own) for c, own in zip(candidates, guess, strict=True)]


class Batch:
    """The requests that share a turn, for which others wait."""

    def __init__(self, first: Waiting, queue: Queue) -> None:
        """Begin with one request.

        Args:
            first: It; its `ms` has the configuration chosen for it, and no other.
            queue: Those that wait.
        """
        self._queue = queue
        self._ms = 0.0
        self._slack_ms: list[float] = []
        self._put(first)

    def has_time(self, joining: Waiting) -> bool:
        """Whether the fastest that a request can be makes nobody of the batch late who would not be without it."""
        typical = self._queue.slowness.typical
        alone_ms, together_ms = typical * self._ms, typical * self._together_ms(joining)
        return not any(alone_ms <= slack_ms < together_ms for slack_ms in self._slack_ms)

    def add(self, joining: Waiting, place: int) -> bool:
        """Take a request out of the queue, unless somebody were late by it who would not be without it.

        Args:
            joining: The one to be added; its `ms` has the configuration chosen for it, and no other.
            place: Its place in the queue.

        Returns:
            Whether it was taken.
        """
        late = self._queue.late(self._together_ms(joining), None, place)
        if not self.has_time(joining) or (late & ~self._queue.late(self._ms, None, place)).any():
            return False
        self._put(joining)
        self._queue.take(place)
        return True

    def _together_ms(self, joining: Waiting) -> float:
        return self._ms + sum(joining.fastest[:1])  # together they take less, but nobody knows how much

    def _put(self, one: Waiting) -> None:
        self._ms = self._together_ms(one)
        self._slack_ms.append(one.slack_ms)


def is_hopeless(own: Waiting, ahead: Sequence[Waiting], running_ms: float, slowness: Slowness) -> bool:
    """Whether a request is predicted to be late even if it and all those ahead of it run at their fastest.

    One that is alone is always tried, so that there are turns to learn from when predictions have become too long.

    Args:
        own: The request.
        ahead: Those that wait before it.
        running_ms: Predicted milliseconds until a turn that is being taken ends.
        slowness: How predictions compare with what turns take.
    """
    if own.slack_ms == math.inf or not (ahead or running_ms):
        return False
    total_ms = 0.0
    for other in ahead:
        # At its turn it is given up if it cannot meet its deadline. A budget, or a reserve, is no reason for that.
        if running_ms + slowness.typical * (total_ms + sum(other.fastest)) <= other.deadline_ms:
            total_ms += sum(other.fastest[: own.turns])
    return running_ms + slowness.typical * (total_ms + sum(own.fastest)) > own.slack_ms


def is_at_risk(own: Waiting, ahead: Sequence[Waiting], running_ms: float, slowness: Slowness) -> bool:
    """Whether a request could be late: if it and all those ahead run at their slowest, and turns stall.

    That others are in time says nothing: on a server where each request has a minute, all are.
    Arguments are those of `is_hopeless`, which holds for none that is not at risk.
    """
    ahead_ms = sum(sum(other.slowest[: own.turns]) for other in ahead)
    needed_ms = running_ms + slowness.typical * (ahead_ms + sum(own.slowest))
    return _STALL * needed_ms > (1 - LARGEST_RESERVE) * own.deadline_ms
