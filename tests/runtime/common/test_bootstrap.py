import numpy as np
import pytest

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import InvalidInputError


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.960), (0.8, 1.2816)])
def test_interval_of_many_scores_is_that_of_the_normal_distribution(level: float, quantile: float) -> None:
    random = np.random.default_rng(1)
    b = random.uniform(0, 100, 2000)
    a = b + random.normal(2, 10, 2000)
    error = np.std(a - b) / np.sqrt(2000)
    mean, low, high = paired_bootstrap(a, b, samples=3000, level=level)
    assert mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (low - mean) / error == pytest.approx(-quantile, rel=0.06)
    assert (high - mean) / error == pytest.approx(quantile, rel=0.06)


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_bootstrap([3, 4, 9], [1, 2, 7], samples=50) == (2, 2, 2)


def test_repeatable() -> None:
    a, b = np.random.default_rng(0).uniform(size=(2, 30))
    assert paired_bootstrap(a, b, samples=100, seed=4) == paired_bootstrap(a, b, samples=100, seed=4)
    assert paired_bootstrap(a, b, samples=100, seed=4) != paired_bootstrap(a, b, samples=100, seed=5)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1, 2], [1], {}, r"not \(2,\) and \(1,\)"),
        ([], [], {}, r"not \(0,\)"),
        (1, 2, {}, r"not \(\)"),
        ([1], [1], {"samples": 0}, "samples must be an int of at least 1, not 0"),
        ([1], [1], {"level": 95}, "level must be between 0 and 1, not 95"),
    ],
)
def test_bad_input(a: list[float], b: list[float], options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        paired_bootstrap(a, b, **options)
