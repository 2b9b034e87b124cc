"""The rule by which windows of one question run, and leave: it knows what was found, and nothing of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.bundles.competition import WindowCompetition

ROUND = 2
"""Windows of a question that run together; after each round its contest may be over."""


class Contest:
    """The windows of one question, which run in the order of their match until the rest can no longer win."""

    def __init__(self, rules: WindowCompetition, match: npt.NDArray[np.float64], count: int = 1) -> None:
        """Begin a contest.

        Args:
            rules: The numbers of the rule.
            match: How well each window matches the question, 0 to 1, see `matches`.
            count: Number of answers that are wanted. Windows run until this many are sure.
        """
        self._rules = rules
        self._match = match
        self._count = count
        self._waiting: list[int] = np.argsort(-match, kind="stable").tolist()
        self._most_important = -math.inf
        self._found: dict[tuple[int, int], float] = {}

    def next_round(self) -> list[int]:
        """The indices of the windows to run next; none if the contest is over."""
        if not self._waiting:
            return []
        best = sorted(self._found.values(), reverse=True)[: self._count]
        least = best[-1] if len(best) == self._count else -math.inf
        if least >= self._rules.sure + self._rules.match * self._match[self._waiting[0]]:
            self._waiting = []
        now, self._waiting = self._waiting[:ROUND], self._waiting[ROUND:]
        return now

    def staying(self, importance: Sequence[float]) -> list[int]:
        """Which windows of the round go on, as indices into it, by the logit of each one's most important token."""
        self._most_important = max(self._most_important, *importance)
        return [i for i, own in enumerate(importance) if own >= self._most_important - self._rules.margin]

    def note(self, advantages: Mapping[tuple[int, int], float]) -> None:
        """Note the best spans of a window that has run to the end, by their characters; see `advantages`."""
        for place, advantage in advantages.items():
            self._found[place] = max(self._found.get(place, -math.inf), advantage)
