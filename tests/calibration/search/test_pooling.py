import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from dynamic_tinybert.calibration.search.pooling import pooled
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.length_config import LengthConfig

CONFIG = LengthConfig((1.0,))
QUESTIONS = 400


def trial(scores: np.ndarray) -> Trial:
    return Trial(CONFIG, tuple(scores.tolist()), macs=1.0, latency_ms=1.0)


FULL = trial(np.full(QUESTIONS, 100.0))


def trials(true_losses: np.ndarray, seed: int = 0) -> list[Trial]:
    """In each a share of the questions is lost, by chance more or less than its true loss."""
    random = np.random.default_rng(seed)
    return [trial(np.where(random.random(QUESTIONS) < loss / 100, 0.0, 100.0)) for loss in true_losses]


def test_losses_are_nearer_to_the_true_ones_and_the_best_is_no_luck() -> None:
    features = np.linspace(-1, 1, 60)[:, None]
    true = 4 + 3 * features[:, 0]
    errors, luck = [], []
    for seed in range(5):
        measured = trials(true, seed)
        found = pooled(measured, features, FULL)
        losses = np.array([[100 - t.score for t in some] for some in (measured, found)])
        errors.append(abs(losses - true).mean(1))
        luck.append([(true - losses[k])[losses[k].argmin()] for k in range(2)])
    assert np.mean(errors, 0)[1] < 0.5 * np.mean(errors, 0)[0]
    assert abs(np.mean(luck, 0)[1]) < 0.5 * np.mean(luck, 0)[0]


def test_mean_losses_are_what_scikit_learn_expects() -> None:
    features = np.random.default_rng(0).normal(size=(20, 2))
    measured = trials(5 + features[:, 0], seed=1)
    losses = 100 - np.array([t.score for t in measured])
    errors = np.array([np.std(t.scores) for t in measured]) / QUESTIONS**0.5
    found = 100 - np.array([t.score for t in pooled(measured, features, FULL)])

    def expected(scale: float, factor: float) -> GaussianProcessRegressor:
        kernel = ConstantKernel(losses.var()) * (Matern(scale, nu=2.5) + ConstantKernel(3) * DotProduct(1e-9))
        process = GaussianProcessRegressor(kernel, alpha=(factor * errors) ** 2, optimizer=None)
        return process.fit(features, losses - losses.mean())

    fits = [expected(scale, factor) for scale in (1.0, 2.0, 4.0) for factor in (0.25, 0.5, 1.0)]
    likeliest = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    np.testing.assert_allclose(found, likeliest.predict(features) + losses.mean(), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_one_alone_stays_as_it_is(count: int) -> None:
    some = trials(np.full(count, 5.0))
    assert pooled(some, np.zeros((count, 2)), FULL) == some


def test_all_but_f1_stays() -> None:
    some = [Trial(CONFIG, t.scores, macs=k, latency_ms=2.0 * k) for k, t in enumerate(trials(np.arange(5.0)))]
    found = pooled(some, np.arange(5.0)[:, None], FULL)
    assert [(t.config, t.macs, t.latency_ms) for t in found] == [(t.config, t.macs, t.latency_ms) for t in some]
