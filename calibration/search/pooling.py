"""Expected losses given all measurements: the measured loss of the best of many is too optimistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .surrogate import GaussianProcess, Values
from .trial import Trial

_NOISE_FACTORS = (0.25, 0.5, 1.0)
_LEAST_ERROR = 0.1  # of a loss, in points


def pooled(
    trials: Sequence[Trial],
    features: Values,
    full: Trial,
    partial: Sequence[Trial] = (),
    partial_features: Values | None = None,
) -> list[Trial]:
    """The trials with the score that is expected for each example given the measurements of all trials.

    Each trial's loss against `full`, example by example, becomes a weighted sum of all trials' losses. The weights
    are those of a Gaussian process fitted to the mean losses, so that a configuration which did well by chance is
    drawn towards its neighbours. Neighbours that ran on a part of the examples count with their mean losses, which are
    less certain; what the other trials lose more on all examples than on that part is added to them.

    Args:
        trials: Trials of some configurations on the same examples.
        features: Coordinates of the configurations that the loss depends on smoothly, [trials, d].
        full: The trial of `full` on these examples.
        partial: Trials of further configurations, each on some first ones of the examples.
        partial_features: The coordinates of these, [partial, d].
    """
    if len(trials) + len(partial) < 2 or not trials:
        return list(trials)
    losses = np.array([_lost(trial, full) for trial in trials])
    of_partial = [_lost(trial, full) for trial in partial]
    rest = np.array([lost.mean() + (losses.mean(1) - losses[:, : len(lost)].mean(1)).mean() for lost in of_partial])
    means = np.concatenate([losses.mean(1), rest])
    errors = np.array([lost.std() / len(lost) ** 0.5 for lost in (*losses, *of_partial)])
    points = features if partial_features is None else np.vstack([features, partial_features])
    process = GaussianProcess(points, means, np.maximum(errors, _LEAST_ERROR), noise_factors=_NOISE_FACTORS)
    weights = process.weights(features)
    count = len(trials)
    average = losses.mean(0) - losses.mean() + means.mean()
    expected = average + weights[:, :count] @ (losses - average) + (weights[:, count:] @ (rest - means.mean()))[:, None]
    scores = np.asarray(full.scores) - expected
    return [replace(trial, scores=tuple(row.tolist())) for trial, row in zip(trials, scores, strict=True)]


def _lost(trial: Trial, full: Trial) -> npt.NDArray[np.float64]:
    """What a trial loses on each of its examples."""
    return np.subtract(full.scores[: len(trial.scores)], trial.scores)
