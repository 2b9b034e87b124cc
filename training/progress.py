"""Progress of a training: write losses to its journal, and report them at intervals."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from statistics import fmean
from time import monotonic

from dynamic_tinybert.runtime.common.journal import Journal

STEP = "step"
"""Kind of the journal entries that hold the parts of each step's loss."""

_SECONDS_BETWEEN_LINES = 20.0
_AVERAGED = 50  # steps whose mean losses a line shows


class Progress:
    """Records the losses of steps and reports how far the training is.

    Args:
        journal: The journal of the training.
        steps: Number of steps of the training.
        say: Called with a line of text every 20 seconds and after the last step.
    """

    def __init__(self, journal: Journal, steps: int, say: Callable[[str], None]) -> None:
        self._journal = journal
        self._steps = steps
        self._say = say
        self._recent: deque[Mapping[str, float]] = deque(maxlen=_AVERAGED)
        self._times: deque[float] = deque(maxlen=_AVERAGED + 1)
        self._last_line = monotonic()

    def __call__(self, step: int, losses: Mapping[str, float]) -> None:
        """Record a step.

        Args:
            step: Number of the step, from 1.
            losses: The parts of its loss by name.

        Raises:
            StorageError: The losses could not be written.
        """
        self._journal.add(STEP, str(step), losses)
        now = monotonic()
        self._recent.append(losses)
        self._times.append(now)
        if now - self._last_line > _SECONDS_BETWEEN_LINES or step == self._steps:
            self._last_line = now
            self._say(self._line(step))

    def _line(self, step: int) -> str:
        latest = self._recent[-1]
        means = {name: fmean(losses[name] for losses in self._recent if name in losses) for name in latest}
        parts = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        line = f"step {step} of {self._steps}: loss {sum(means.values()):.3f} ({parts})"
        if len(self._times) < 2:
            return line
        seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        return f"{line}, {seconds:.2f} s a step, {seconds * (self._steps - step) / 60:.1f} min left"
