"""What a configuration loses, after all that was measured near it: the best of many looks better than it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .surrogate import GaussianProcess, Values
from .trial import Trial

_NOISE_FACTORS = (0.25, 0.5, 1.0)
_LEAST_ERROR = 0.1  # of a loss, in percent


def pooled(trials: Sequence[Trial], features: Values, full: Trial) -> list[Trial]:
    """The trials with the F1 that is to be expected of each question after what all of them say.

    Each trial's loss against `full`, question by question, becomes a weighted sum of all trials' losses. The weights
    are those of a Gaussian process fitted to the mean losses, so that a configuration which did well by chance is
    brought down to its neighbours.

    Args:
        trials: Trials of some configurations on the same questions.
        features: What the loss depends on smoothly, [trials, d].
        full: The trial of `full` on these questions.
    """
    if len(trials) < 2:
        return list(trials)
    losses = np.array([np.subtract(full.question_f1, trial.question_f1) for trial in trials])
    means, errors = losses.mean(1), losses.std(1) / losses.shape[1] ** 0.5
    process = GaussianProcess(features, means, np.maximum(errors, _LEAST_ERROR), noise_factors=_NOISE_FACTORS)
    usual = losses.mean(0)
    expected = usual + process.shares(features) @ (losses - usual)
    f1 = np.asarray(full.question_f1) - expected
    return [replace(trial, question_f1=tuple(row.tolist())) for trial, row in zip(trials, f1, strict=True)]
