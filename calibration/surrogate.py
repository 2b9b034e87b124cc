"""A Gaussian process: what a measurement would say, from those that were made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class GaussianProcess:
    """Regression with a linear and a Matérn 5/2 part; the length scale is the likeliest of a few."""

    def __init__(
        self, points: Values, values: Values, noise: Values, length_scales: Sequence[float] = (1.0, 2.0, 4.0)
    ) -> None:
        """Fit.

        Args:
            points: Where it was measured [n, d]. One unit should matter about as much in each dimension.
            values: What was measured [n].
            noise: Standard error of each value, above 0 [n].
            length_scales: To choose among.
        """
        self._points, self._mean = points, values.mean()
        self._variance = values.var() + 1e-12
        rest = values - self._mean

        def fitted(scale: float) -> tuple[float, Values]:
            covariance = self._covariance(points, scale) + np.diag(noise**2)
            weights = np.linalg.solve(covariance, rest)
            return float(rest @ weights + np.linalg.slogdet(covariance).logabsdet), weights

        self._scale = min(length_scales, key=lambda scale: fitted(scale)[0])
        self._weights = fitted(self._scale)[1]

    def __call__(self, points: Values) -> Values:
        """Expected values at `points` [m, d], as [m]."""
        return np.asarray(self._mean + self._covariance(points, self._scale) @ self._weights)

    def _covariance(self, points: Values, scale: float) -> Values:
        squared = (points**2).sum(1)[:, None] + (self._points**2).sum(1) - 2 * points @ self._points.T
        distance = np.sqrt(5 * np.maximum(squared, 0)) / scale
        matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return np.asarray(self._variance * (matern + 3 * points @ self._points.T))
