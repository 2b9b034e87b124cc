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


def test_trials_on_a_part_count_with_their_means() -> None:
    """Against scikit-learn, with what finished trials lose more on the rest added to those that ran on a part."""
    features = np.random.default_rng(0).normal(size=(20, 2))
    measured = trials(5 + features[:, 0], seed=1)
    whole, part = measured[:8], [trial(np.array(t.scores[:100])) for t in measured[8:]]
    losses = np.array([100 - t.score for t in whole])
    more = np.mean([100 - t.score - (100 - np.mean(t.scores[:100])) for t in whole])
    values = np.concatenate([losses, [100 - t.score + more for t in part]])
    errors = np.array([np.std(t.scores) / len(t.scores) ** 0.5 for t in (*whole, *part)])
    found = pooled(whole, features[:8], FULL, part, features[8:])

    def expected(scale: float, factor: float) -> GaussianProcessRegressor:
        kernel = ConstantKernel(values.var()) * (Matern(scale, nu=2.5) + ConstantKernel(3) * DotProduct(1e-9))
        process = GaussianProcessRegressor(kernel, alpha=(factor * errors) ** 2, optimizer=None)
        return process.fit(features, values - values.mean())

    fits = [expected(scale, factor) for scale in (1.0, 2.0, 4.0) for factor in (0.25, 0.5, 1.0)]
    likeliest = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    np.testing.assert_allclose(
        [100 - t.score for t in found], likeliest.predict(features[:8]) + values.mean(), rtol=1e-5
    )


def test_trials_on_a_part_bring_losses_nearer_to_the_true_ones() -> None:
    errors = []
    for seed in range(20):
        features = np.random.default_rng(seed).normal(size=(40, 2))
        measured = trials(5 + features[:, 0], seed=seed)
        whole, part = measured[:5], [trial(np.array(t.scores[:200])) for t in measured[5:]]
        both = pooled(whole, features[:5], FULL, part, features[5:]), pooled(whole, features[:5], FULL)
        errors.append([np.abs(100 - np.array([t.score for t in some]) - 5 - features[:5, 0]).mean() for some in both])
    assert np.mean(errors, 0)[0] < 0.9 * np.mean(errors, 0)[1]


@pytest.mark.parametrize("count", [0, 1])
def test_one_alone_stays_as_it_is(count: int) -> None:
    some = trials(np.full(count, 5.0))
    assert pooled(some, np.zeros((count, 2)), FULL) == some


def test_all_but_f1_stays() -> None:
    some = [Trial(CONFIG, t.scores, macs=k, latency_ms=2.0 * k) for k, t in enumerate(trials(np.arange(5.0)))]
    found = pooled(some, np.arange(5.0)[:, None], FULL)
    assert [(t.config, t.macs, t.latency_ms) for t in found] == [(t.config, t.macs, t.latency_ms) for t in some]
