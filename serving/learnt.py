"""What a server learns from its requests: how slow turns are, how much time to leave unused, what time costs."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Sequence

from dynamic_tinybert.runtime.budget import Candidate

LARGEST_RESERVE = 0.7
"""Largest share of the time of requests that is left unused so that few are late."""

_REMEMBERED = 128
"""Number of latest turns whose predictions are compared with what they took."""

_UPPER = 0.98
"""Share of turns that took no longer than predicted times `Slowness.upper`."""

_WEIGHT = 0.05
"""Weight of the latest request in the mean of what requests can save."""

_AT_FIRST = (*[1.0] * 7, 1.25)
"""What counts as measured before anything was: predictions are medians, see docs/budgets.md."""


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
    return Reserve(0.003, step=0.05, first=0.5, largest=LARGEST_RESERVE)


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
        """Take a request into account that was refused, or accepted although it could have been late."""
        for share in self._shares:
            share.learn(happened=refused)

    def note(self, saved_ms: float) -> None:
        """Take into account, once for each request, what its fastest configuration saves against its slowest."""
        if saved_ms > 0:  # those without a choice save nothing whatever the price
            self._saved_ms += (_WEIGHT if self._saved_ms else 1.0) * (saved_ms - self._saved_ms)

    def of_ms(self, candidates: Sequence[Candidate]) -> float:
        """The price for a request that may run at these configurations, whose losses are all known."""
        times, losses = [c.ms for c in candidates], [c.f1_loss or 0.0 for c in candidates]
        saved_ms = self._saved_ms or max(times) - min(times)
        share = sum(own.share for own in self._shares)
        return share * (max(losses) - min(losses)) / saved_ms if saved_ms else 0.0
