"""Windows of a long context compete: how they are compared, and when the rest of them need not run any more."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import batches_of
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.windows import Window

from .inference import WindowOutput, run_batch
from .matching import matches
from .options import AnswerOptions
from .spans import advantages
from .task import QuestionAnsweringOutput

PRIOR = 10.0
"""By how many logits a window without a token of the question falls behind the one that matches it best."""

MOST = 15.0
"""The largest advantage over no answer that a window that waits is trusted to have, in logits. Some have more, but they
do so rarely, and rarely where the question's words are not: see `docs/decisions/0062-windows-compete.md`."""

ROUND = 4
"""Windows of a question that run together; after each round the rest may be left out."""


def priors(windows: Sequence[Window]) -> npt.NDArray[np.float64]:
    """For each window of a question, the logits that are added to those of its spans, at most 0, [n].

    They are `PRIOR` times by how much less a window matches the question than the best one does.
    """
    match = matches(windows)
    found: npt.NDArray[np.float64] = PRIOR * (match - match.max())
    return found


def run_competing(
    model: Callable[..., QuestionAnsweringOutput],
    questions: Sequence[Sequence[Window]],
    options: AnswerOptions,
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
) -> list[list[WindowOutput | None]]:
    """Run the windows of each question, those that match it best first, until no other one is likely to win.

    Args:
        model: A `LengthAdaptiveModel`, or an object that can be called like one.
        questions: The windows of each question.
        options: `top_k`, `max_answer_len` and `batch_size` count.
        length_config: As for the model.

    Returns:
        The output for each window; None for those that were left out.
    """
    contests = [_Contest(own, options) for own in questions]
    while True:
        running = [(contest, index) for contest in contests for index in contest.next_round()]
        if not running:
            return [contest.outputs for contest in contests]
        lengths = [len(contest.windows[index]) for contest, index in running]
        for batch in batches_of(lengths, options.batch_size):
            keys = [running[i] for i in batch]
            windows = [contest.windows[index] for contest, index in keys]
            outputs = run_batch(model, windows, length_config=length_config)
            for (contest, index), output in zip(keys, outputs, strict=True):
                contest.note(index, output)


class _Contest:
    """The windows of one question."""

    def __init__(self, windows: Sequence[Window], options: AnswerOptions) -> None:
        self.windows = windows
        self.outputs: list[WindowOutput | None] = [None] * len(windows)
        self._options = options
        self._priors = priors(windows)
        self._waiting: list[int] = np.argsort(-self._priors, kind="stable").tolist()
        self._found: dict[tuple[int, int], float] = {}

    def next_round(self) -> list[int]:
        """The windows to run next; none if the contest is over."""
        best = heapq.nlargest(self._options.top_k, self._found.values())
        if self._waiting and len(best) == self._options.top_k and best[-1] >= MOST + self._priors[self._waiting[0]]:
            self._waiting = []
        now, self._waiting = self._waiting[:ROUND], self._waiting[ROUND:]
        return now

    def note(self, index: int, output: WindowOutput) -> None:
        """Note what a window gave."""
        self.outputs[index] = output
        options = self._options
        spans = advantages(self.windows[index], output, count=options.top_k, max_answer_len=options.max_answer_len)
        for place, advantage in spans.items():
            score = advantage + float(self._priors[index])
            self._found[place] = max(self._found.get(place, score), score)
