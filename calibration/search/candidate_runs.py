"""Measure candidate length configurations: on few examples first, on more only if they may get a name, none twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.length_config import LengthConfig

from .losses import ONE_SIDED, Loss
from .trial import Trial, joined

WORST_LOSS = 6.0
"""Configurations that surely lose more points than this against `full` are rejected."""

_SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the examples that a configuration has run on after each step but the last
_LEAST = 100  # examples that the first step has
_FEWEST = 4  # examples
_ONE_SIDED_95 = 1.645  # standard errors
_SCORES = "question_f1"  # key of the scores in a journal, kept so that interrupted runs can be resumed

RunCandidate = Callable[[LengthConfig, range], Trial]
"""Measures a configuration on the examples with these indices."""


@dataclass(frozen=True)
class Outcome:
    """What the measurement of a configuration showed so far, against `full` on the same examples.

    Attributes:
        trial: The measurement on the first `measured` of the examples.
        steps: Number of steps that were run: 1 for the smallest first part of the examples.
        measured: Share of the examples that were run; 1 if no step is left.
        rejected: Whether it was hopeless after the last of these steps.
        loss: Mean score lost, in points, with its standard errors.
        latency: Mean latency as a share of that of `full`.
        macs: Mean multiply-accumulates as a share of those of `full`.
    """

    trial: Trial
    steps: int
    measured: float
    rejected: bool
    loss: Loss
    latency: float
    macs: float

    @property
    def finished(self) -> bool:
        """Whether it was run on all examples and not rejected, so that it may get a name."""
        return self.measured == 1 and not self.rejected

    @property
    def margin(self) -> float:
        """Distance, in points, of the loss to its upper bound as it will be on all examples."""
        return ONE_SIDED * self.loss.largest_error * math.sqrt(self.measured)


class Measurer:
    """Measures configurations step by step, on an eighth, a quarter, a half and all of the examples.

    With few examples the first steps are left out, so that each step has at least 100 examples if there are as many.
    A configuration is hopeless, and not measured further, if it surely loses more than `WORST_LOSS` against `full`, or
    surely loses anything against a configuration that was measured before on as many examples and is no slower.

    Attributes:
        full: `full` on all examples.
        steps: Number of steps.
    """

    def __init__(self, run: RunCandidate, journal: Journal, *, num_layers: int, groups: Sequence[str]) -> None:
        """Measure `full`.

        Args:
            run: Measures a configuration. The same call must always give the same scores.
            journal: Keeps every measurement, so that none is repeated.
            num_layers: Number of layers of the encoder.
            groups: For each example the name of its group, such as its article. The examples are in random order: the
                first part must be like the rest.

        Raises:
            InvalidInputError: There are fewer than 4 examples.
            StorageError: The journal cannot be written.
        """
        count = len(groups)
        require_int("the number of examples", count, _FEWEST)
        self._run, self._journal, self._groups = run, journal, groups
        ends = [*(end for share in _SHARES if (end := int(share * count)) >= _LEAST), count]
        self._parts = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self._known: dict[LengthConfig, list[Trial]] = {}  # on the examples of the first, the first two ... parts
        self._outcomes: dict[LengthConfig, Outcome] = {}
        self.steps = len(self._parts)
        self._full = self._up_to(LengthConfig.full(num_layers), self.steps)
        self.full = self._full[-1]

    def __call__(self, config: LengthConfig) -> Outcome:
        """Measure a configuration one step further, or take this step from the journal.

        A configuration that was rejected, or measured on all examples, is not measured any more.

        Raises:
            StorageError: The journal cannot be written.
        """
        before = self._outcomes.get(config)
        if before is not None and (before.rejected or before.steps == self.steps):
            return before
        steps = 1 if before is None else before.steps + 1
        trial = self._up_to(config, steps)[steps - 1]
        full = self._full[steps - 1]
        self._outcomes[config] = Outcome(
            trial,
            steps,
            self._parts[steps - 1].stop / len(self._groups),
            self._is_hopeless(config, trial, steps),
            Loss.of(trial, full, self._groups),
            trial.latency_ms / full.latency_ms,
            trial.macs / full.macs,
        )
        return self._outcomes[config]

    def _is_hopeless(self, config: LengthConfig, trial: Trial, steps: int) -> bool:
        others = [
            self._known[other][steps - 1]
            for other, outcome in self._outcomes.items()
            if other != config and not outcome.rejected and outcome.steps >= steps
        ]
        return _surely_loses(trial, self._full[steps - 1], WORST_LOSS) or any(
            _surely_loses(trial, other, 0) for other in others if other.latency_ms <= trial.latency_ms
        )

    def _up_to(self, config: LengthConfig, steps: int) -> list[Trial]:
        """The trials of a configuration on the examples of the first, the first two ... `steps` parts, at least."""
        known = self._known.setdefault(config, [])
        for part in self._parts[len(known) : steps]:
            own = self._part(config, part)
            known.append(joined(known[-1], own) if known else own)
        return known

    def _part(self, config: LengthConfig, examples: range) -> Trial:
        key = json.dumps([config.keep_ratios, config.thresholds, examples.start, examples.stop])
        known = self._journal.get("trial", key)
        if known is not None:
            return Trial(config, tuple(known[_SCORES]), known["macs"], known["latency_ms"])
        trial = self._run(config, examples)
        self._journal.add("trial", key, {_SCORES: trial.scores, "macs": trial.macs, "latency_ms": trial.latency_ms})
        return trial


def _surely_loses(trial: Trial, reference: Trial, more_than: float) -> bool:
    loss = Loss.of(trial, reference)
    return loss.mean - _ONE_SIDED_95 * loss.error > more_than
