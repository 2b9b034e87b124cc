"""Gaussian process regression: predicts what a measurement would give from the measurements that were made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class GaussianProcess:
    """Regression with a linear and a Matérn 5/2 kernel; length scale and noise are the most likely of a few."""

    def __init__(
        self,
        points: Values,
        values: Values,
        noise: Values,
        length_scales: Sequence[float] = (1.0, 2.0, 4.0),
        noise_factors: Sequence[float] = (1.0,),
    ) -> None:
        """Fit the process.

        Args:
            points: Where measurements were made, [n, d]. One unit should matter about equally in each dimension.
            values: The measurements, [n].
            noise: Standard error of each value, above 0, [n].
            length_scales: Candidates for the length scale of the Matérn kernel.
            noise_factors: Candidates for a factor on `noise`. If all configurations are measured on the same examples,
                they share part of their errors.
        """
        self._points, self._mean = points, values.mean()
        self._variance = values.var() + 1e-12
        centred = values - self._mean

        def noisy_covariance(scale: float, factor: float) -> Values:
            return np.asarray(self._covariance(points, scale) + np.diag((factor * noise) ** 2))

        def negative_log_likelihood(choice: tuple[float, float]) -> float:
            covariance = noisy_covariance(*choice)
            return float(centred @ np.linalg.solve(covariance, centred) + np.linalg.slogdet(covariance).logabsdet)

        choice = min(product(length_scales, noise_factors), key=negative_log_likelihood)
        self._scale = choice[0]
        self._inverse = np.linalg.inv(noisy_covariance(*choice))
        self._weights = self._inverse @ centred

    def __call__(self, points: Values) -> Values:
        """Expected values at `points` [m, d]: [m]."""
        return np.asarray(self._mean + self._covariance(points, self._scale) @ self._weights)

    def weights(self, points: Values) -> Values:
        """Weight of each measurement's difference from their mean in the expected values at `points` [m, d]: [m, n]."""
        return np.asarray(self._covariance(points, self._scale) @ self._inverse)

    def _covariance(self, points: Values, scale: float) -> Values:
        squared = (points**2).sum(1)[:, None] + (self._points**2).sum(1) - 2 * points @ self._points.T
        distance = np.sqrt(5 * np.maximum(squared, 0)) / scale
        matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return np.asarray(self._variance * (matern + 3 * points @ self._points.T))
