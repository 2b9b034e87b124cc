"""A Gaussian process: what a measurement would say, from those that were made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class GaussianProcess:
    """Regression with a linear and a Matérn 5/2 part; length scale and noise are the likeliest of a few."""

    def __init__(
        self,
        points: Values,
        values: Values,
        noise: Values,
        length_scales: Sequence[float] = (1.0, 2.0, 4.0),
        noise_factors: Sequence[float] = (1.0,),
    ) -> None:
        """Fit.

        Args:
            points: Where it was measured [n, d]. One unit should matter about as much in each dimension.
            values: What was measured [n].
            noise: Standard error of each value, above 0 [n].
            length_scales: To choose among.
            noise_factors: To choose among, what `noise` is multiplied by: of configurations that answer the same
                questions, a part of each error is common to all.
        """
        self._points, self._mean = points, values.mean()
        self._variance = values.var() + 1e-12
        rest = values - self._mean

        def measured(scale: float, factor: float) -> Values:
            return np.asarray(self._covariance(points, scale) + np.diag((factor * noise) ** 2))

        def unlikelihood(choice: tuple[float, float]) -> float:
            covariance = measured(*choice)
            return float(rest @ np.linalg.solve(covariance, rest) + np.linalg.slogdet(covariance).logabsdet)

        choice = min(product(length_scales, noise_factors), key=unlikelihood)
        self._scale = choice[0]
        self._inverse = np.linalg.inv(measured(*choice))
        self._weights = self._inverse @ rest

    def __call__(self, points: Values) -> Values:
        """Expected values at `points` [m, d], as [m]."""
        return np.asarray(self._mean + self._covariance(points, self._scale) @ self._weights)

    def shares(self, points: Values) -> Values:
        """What each measurement, less their mean, contributes to the expected values at `points` [m, d], as [m, n]."""
        return np.asarray(self._covariance(points, self._scale) @ self._inverse)

    def _covariance(self, points: Values, scale: float) -> Values:
        squared = (points**2).sum(1)[:, None] + (self._points**2).sum(1) - 2 * points @ self._points.T
        distance = np.sqrt(5 * np.maximum(squared, 0)) / scale
        matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return np.asarray(self._variance * (matern + 3 * points @ self._points.T))
