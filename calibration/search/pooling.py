"""Expected losses given all measurements: the measured loss of the best of many is too optimistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .surrogate import GaussianProcess, Values
from .trial import Trial

_NOISE_FACTORS = (0.25, 0.5, 1.0)
_LEAST_ERROR = 0.1  # of a loss, in points


def pooled(trials: Sequence[Trial], features: Values, full: Trial) -> list[Trial]:
    """The trials with the score that is expected for each example given the measurements of all trials.

    Each trial's loss against `full`, example by example, becomes a weighted sum of all trials' losses. The weights
    are those of a Gaussian process fitted to the mean losses, so that a configuration which did well by chance is
    drawn towards its neighbours.

    Args:
        trials: Trials of some configurations on the same examples.
        features: Coordinates of the configurations that the loss depends on smoothly, [trials, d].
        full: The trial of `full` on these examples.
    """
    if len(trials) < 2:
        return list(trials)
    losses = np.array([np.subtract(full.scores, trial.scores) for trial in trials])
    means, errors = losses.mean(1), losses.std(1) / losses.shape[1] ** 0.5
    process = GaussianProcess(features, means, np.maximum(errors, _LEAST_ERROR), noise_factors=_NOISE_FACTORS)
    average = losses.mean(0)
    expected = average + process.weights(features) @ (losses - average)
    scores = np.asarray(full.scores) - expected
    return [replace(trial, scores=tuple(row.tolist())) for trial, row in zip(trials, scores, strict=True)]
