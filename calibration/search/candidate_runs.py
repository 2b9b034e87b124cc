"""Measure length configurations: hopeless ones on few questions only, and none twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.length_config import LengthConfig

from .trial import Trial, joined

WORST_LOSS = 6.0
"""Nobody is interested in configurations that lose more F1 against `full`, in percent."""

_FIRST_PART = 4  # one question in so many decides whether the others are asked
_SURE = 1.645  # standard errors: 95 %, one-sided

Measure = Callable[[LengthConfig, range], Trial]
"""Measures a configuration on the questions with these indices."""


@dataclass(frozen=True)
class Outcome:
    """What the measurement of a configuration showed, against `full` on the same questions.

    Attributes:
        trial: The measurement.
        rejected: It was hopeless after the first part of the questions, and `trial` holds only those.
        loss: Mean F1 lost, in percent.
        loss_error: Standard error of `loss`.
        latency: Mean latency as a share of that of `full`.
    """

    trial: Trial
    rejected: bool
    loss: float
    loss_error: float
    latency: float


class Measurer:
    """Measures configurations, on the first quarter of the questions and then, if there is hope, on the rest.

    There is none if a configuration surely loses more than `WORST_LOSS` against `full`, or any F1 against one that
    was measured before and is no slower.

    Attributes:
        full: `full` on all questions.
    """

    def __init__(self, measure: Measure, journal: Journal, *, num_layers: int, num_questions: int) -> None:
        """Measure `full`.

        Args:
            measure: Measures a configuration. The same call must always give the same F1.
            journal: Keeps every measurement; what it has is not measured again.
            num_layers: Layers of the encoder.
            num_questions: Questions to choose on, in random order: the first quarter must be like the rest.

        Raises:
            InvalidInputError: There are fewer than 4 questions.
            StorageError: The journal cannot be written.
        """
        require_int("num_questions", num_questions, _FIRST_PART)
        self._measure, self._journal = measure, journal
        cut = num_questions // _FIRST_PART
        self._first, self._rest = range(cut), range(cut, num_questions)
        self._hopeful: list[Trial] = []  # on the first part
        self._full_first = self._part(LengthConfig.full(num_layers), self._first)
        self.full = joined(self._full_first, self._part(self._full_first.config, self._rest))

    def __call__(self, config: LengthConfig) -> Outcome:
        """Measure a configuration, or take it from the journal.

        Raises:
            StorageError: The journal cannot be written.
        """
        first = self._part(config, self._first)
        if self._is_hopeless(first):
            return _outcome(first, self._full_first, rejected=True)
        self._hopeful.append(first)
        return _outcome(joined(first, self._part(config, self._rest)), self.full, rejected=False)

    def _is_hopeless(self, first: Trial) -> bool:
        return _surely_loses(first, self._full_first, WORST_LOSS) or any(
            _surely_loses(first, other, 0) for other in self._hopeful if other.latency_ms <= first.latency_ms
        )

    def _part(self, config: LengthConfig, questions: range) -> Trial:
        key = json.dumps([config.keep_ratios, config.thresholds, questions.start, questions.stop])
        known = self._journal.get("trial", key)
        if known is not None:
            return Trial(config, tuple(known["question_f1"]), known["macs"], known["latency_ms"])
        trial = self._measure(config, questions)
        value = {"question_f1": trial.question_f1, "macs": trial.macs, "latency_ms": trial.latency_ms}
        self._journal.add("trial", key, value)
        return trial


def _outcome(trial: Trial, full: Trial, *, rejected: bool) -> Outcome:
    loss, error = _loss(trial, full)
    return Outcome(trial, rejected, loss, error, trial.latency_ms / full.latency_ms)


def _loss(trial: Trial, reference: Trial) -> tuple[float, float]:
    """Mean F1 lost against `reference`, and its standard error."""
    lost = np.subtract(reference.question_f1, trial.question_f1)
    return float(lost.mean()), float(lost.std() / len(lost) ** 0.5)


def _surely_loses(trial: Trial, reference: Trial, more_than: float) -> bool:
    loss, error = _loss(trial, reference)
    return loss - _SURE * error > more_than
