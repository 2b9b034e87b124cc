"""What the questions of one asynchronous answerer share: the model, when it will be free, and what was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from time import monotonic, perf_counter
from typing import Any

from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_batch
from dynamic_tinybert.runtime.tasks.windows import Window

from .learnt import Price, Slowness, reserve_against_lateness
from .sharing import Config


class Runner:
    """Runs windows, and keeps what was learnt.

    Attributes:
        answerer: What answers.
        at_once: Number of turns that run at the same time.
        slowness: How predictions compare with what turns took.
        lateness: The reserve against lateness.
        price: What time costs.
    """

    def __init__(self, answerer: QuestionAnswerer, at_once: int) -> None:
        self.answerer = answerer
        self.at_once = at_once
        self.slowness = Slowness()
        self.lateness = reserve_against_lateness()
        self.price = Price()
        self._ends: dict[object, float] = {}  # of turns that run, as predicted, as `time.monotonic` counts

    def running_ms(self) -> float:
        """Predicted milliseconds until another turn can begin."""
        # In a forked process, turns of the parent remain; these have ended, and are never among the last.
        ends = nlargest(self.at_once, tuple(self._ends.values()))  # a copy, as others change it meanwhile
        return max(0.0, 1e3 * (ends[-1] - monotonic())) if len(ends) == self.at_once else 0.0

    def run(
        self, windows: Sequence[Window], configs: Sequence[Config], predicted_ms: float, *, learn: bool
    ) -> list[WindowOutput]:
        """Run windows in one call.

        One configuration of a name runs in a graph of its own, any others in the elastic graph.

        Args:
            windows: The windows.
            configs: The length configuration of each.
            predicted_ms: Milliseconds that this is predicted to take; 0 if unknown.
            learn: Whether to compare the prediction with what it takes.
        """
        model = self.answerer.model
        started, turn = perf_counter(), object()
        one = isinstance(configs[0], str) and len(set(configs)) == 1
        compiled = not one or model.is_compiled(configs[0])
        how: dict[str, Any] = {"length_config": configs[0]} if one else {"length_configs": configs}
        try:
            self._ends[turn] = monotonic() + self.slowness.typical * predicted_ms / 1e3
            outputs = run_batch(model, windows, **how)
        finally:
            self._ends.pop(turn, None)
        if learn and compiled:  # what compiling takes says nothing about further turns
            self.slowness.learn(predicted_ms, 1e3 * (perf_counter() - started))
        return outputs
