"""Measure candidate length configurations: hopeless ones on few examples only, and none twice."""

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
"""Configurations that lose more points than this against `full` are rejected early."""

_FIRST_PART = 4  # one in this many examples decides whether the others are run
_ONE_SIDED_95 = 1.645  # standard errors
_SCORES = "question_f1"  # key of the scores in a journal, kept so that interrupted runs can be resumed

RunCandidate = Callable[[LengthConfig, range], Trial]
"""Measures a configuration on the examples with these indices."""


@dataclass(frozen=True)
class Outcome:
    """What the measurement of a configuration showed, against `full` on the same examples.

    Attributes:
        trial: The measurement.
        rejected: Whether it was hopeless after the first part of the examples; then `trial` holds only those.
        loss: Mean score lost, in points.
        loss_error: Standard error of `loss`.
        latency: Mean latency as a share of that of `full`.
    """

    trial: Trial
    rejected: bool
    loss: float
    loss_error: float
    latency: float


class Measurer:
    """Measures configurations on the first quarter of the examples and then, unless hopeless, on the rest.

    A configuration is hopeless if it loses significantly more than `WORST_LOSS` against `full`, or significantly
    loses anything against a configuration that was measured before and is no slower.

    Attributes:
        full: `full` on all examples.
    """

    def __init__(self, run: RunCandidate, journal: Journal, *, num_layers: int, num_examples: int) -> None:
        """Measure `full`.

        Args:
            run: Measures a configuration. The same call must always give the same scores.
            journal: Keeps every measurement, so that none is repeated.
            num_layers: Number of layers of the encoder.
            num_examples: Number of examples, which are in random order: the first quarter must be like the rest.

        Raises:
            InvalidInputError: There are fewer than 4 examples.
            StorageError: The journal cannot be written.
        """
        require_int("num_examples", num_examples, _FIRST_PART)
        self._run, self._journal = run, journal
        cut = num_examples // _FIRST_PART
        self._first, self._rest = range(cut), range(cut, num_examples)
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

    def _part(self, config: LengthConfig, examples: range) -> Trial:
        key = json.dumps([config.keep_ratios, config.thresholds, examples.start, examples.stop])
        known = self._journal.get("trial", key)
        if known is not None:
            return Trial(config, tuple(known[_SCORES]), known["macs"], known["latency_ms"])
        trial = self._run(config, examples)
        self._journal.add("trial", key, {_SCORES: trial.scores, "macs": trial.macs, "latency_ms": trial.latency_ms})
        return trial


def _outcome(trial: Trial, full: Trial, *, rejected: bool) -> Outcome:
    loss, error = _loss(trial, full)
    return Outcome(trial, rejected, loss, error, trial.latency_ms / full.latency_ms)


def _loss(trial: Trial, reference: Trial) -> tuple[float, float]:
    """Mean score lost against `reference`, and its standard error."""
    lost = np.subtract(reference.scores, trial.scores)
    return float(lost.mean()), float(lost.std() / len(lost) ** 0.5)


def _surely_loses(trial: Trial, reference: Trial, more_than: float) -> bool:
    loss, error = _loss(trial, reference)
    return loss - _ONE_SIDED_95 * error > more_than
