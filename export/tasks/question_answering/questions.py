"""Questions on which INT8 is compared with FP32, run as the runtime will run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.calibration.int8.tuning import Int8Change
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_windows
from dynamic_tinybert.runtime.tasks.question_answering.spans import squad_answer
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1
from dynamic_tinybert.runtime.tasks.windows import Window

Outputs = Sequence[Sequence[WindowOutput]]
"""For each question, the outputs of its windows."""

_BATCH_SIZE = 8


@dataclass(frozen=True)
class Questions:
    """Questions to compare INT8 with FP32 on.

    Attributes:
        name: Where the questions come from, for messages.
        examples: The questions.
        windows: The windows of each question.
        scored: Whether F1 against their answers is computed.
    """

    name: str
    examples: Sequence[Example]
    windows: Sequence[Sequence[Window]]
    scored: bool

    def __len__(self) -> int:
        return len(self.examples)

    def first(self, count: int | None) -> Questions:
        """The first `count` questions, or all if it is None."""
        return Questions(self.name, self.examples[:count], self.windows[:count], self.scored)

    def run(self, model: LengthAdaptiveModel) -> Outputs:
        """The outputs of a model for all windows, at full length."""
        return run_windows(model, self.windows, length_config="full", batch_size=_BATCH_SIZE)

    def compare(self, fp32: Outputs, int8: Outputs) -> Int8Change:
        """Compare the outputs of two models for these questions."""
        moved: list[float] = []
        errors: list[npt.NDArray[np.float32]] = []
        windows = chain.from_iterable(self.windows)
        for window, before, after in zip(windows, chain(*fp32), chain(*int8), strict=True):
            for name in ("start_logits", "end_logits"):
                a, b = (getattr(output, name)[window.context] for output in (before, after))
                moved.append(50 * np.abs(_softmax(a) - _softmax(b)).sum())
                errors.append(np.abs(a - b))
        expected, found = self._answers(fp32), self._answers(int8)
        change = None
        if self.scored:
            right = [example.answers for example in self.examples]
            change = paired_bootstrap(list(map(f1, found, right)), list(map(f1, expected, right)))
        return Int8Change(
            moved=fmean(moved),
            logit_error=float(np.concatenate(errors).mean()),
            same_answers=100 * fmean(a == b for a, b in zip(expected, found, strict=True)),
            f1=change,
            questions=len(self),
        )

    def _answers(self, outputs: Outputs) -> list[str]:
        contexts = (example.context for example in self.examples)
        return list(map(squad_answer, contexts, self.windows, outputs))


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    probabilities: npt.NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    return probabilities
