"""The Gaussian process, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from dynamic_tinybert.calibration.search.surrogate import GaussianProcess

RANDOM = np.random.default_rng(0)
POINTS, ELSEWHERE = RANDOM.normal(size=(40, 3)), RANDOM.normal(size=(10, 3))
NOISE = RANDOM.uniform(0.05, 0.5, 40)
VALUES = np.sin(2 * POINTS[:, 0]) + POINTS[:, 1] + RANDOM.normal(size=40) * NOISE


def reference(scale: float) -> GaussianProcessRegressor:
    kernel = ConstantKernel(VALUES.var()) * (Matern(scale, nu=2.5) + ConstantKernel(3) * DotProduct(1e-9))
    return GaussianProcessRegressor(kernel, alpha=NOISE**2, optimizer=None).fit(POINTS, VALUES - VALUES.mean())


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_predictions_are_those_of_scikit_learn(scale: float) -> None:
    process = GaussianProcess(POINTS, VALUES, NOISE, [scale])
    expected = reference(scale).predict(ELSEWHERE) + VALUES.mean()
    np.testing.assert_allclose(process(ELSEWHERE), expected, rtol=1e-6)


def test_the_likeliest_length_scale_is_taken() -> None:
    scales = [0.1, 1.0, 10.0]
    likeliest = max(scales, key=lambda scale: reference(scale).log_marginal_likelihood_value_)
    assert likeliest == 1.0  # neither the first nor the last
    process = GaussianProcess(POINTS, VALUES, NOISE, scales)
    np.testing.assert_array_equal(process(ELSEWHERE), GaussianProcess(POINTS, VALUES, NOISE, [1.0])(ELSEWHERE))
