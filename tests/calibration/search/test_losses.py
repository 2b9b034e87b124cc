"""What a trial loses, and how sure that is, against plain loops and bootstraps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.calibration.search.losses import ONE_SIDED, Loss, loss_bound
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.length_config import LengthConfig

CONFIG = LengthConfig((1.0,))


def trial(scores: list[float]) -> Trial:
    return Trial(CONFIG, tuple(scores), macs=1.0, latency_ms=1.0)


def articles(sizes: list[int], seed: int, spread: float = 3.0) -> tuple[Trial, Trial, list[str]]:
    """`full`, a trial whose loss differs between articles, and the article of each question."""
    random = np.random.default_rng(seed)
    full, other, names = [], [], []
    for k, size in enumerate(sizes):
        centre = random.normal(2, spread)
        for _ in range(size):
            full.append(float(random.uniform(50, 100)))
            other.append(full[-1] - random.normal(centre, 5))
            names.append(f"article {k}")
    return trial(full), trial(other), names


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.integers(0, 2**32))
def test_errors_are_those_of_plain_loops(sizes: list[int], seed: int) -> None:
    full, other, names = articles(sizes, seed)
    lost = [a - b for a, b in zip(full.scores, other.scores, strict=True)]
    mean = sum(lost) / len(lost)
    squares = 0.0
    for name in set(names):
        squares += sum(value - mean for value, own in zip(lost, names, strict=True) if own == name) ** 2
    loss = Loss.of(other, full, names)
    assert loss.mean == pytest.approx(mean)
    assert loss.error == pytest.approx((sum((value - mean) ** 2 for value in lost) / len(lost) ** 2) ** 0.5)
    expected = (squares * len(sizes) / (len(sizes) - 1)) ** 0.5 / len(lost)
    assert loss.group_error == pytest.approx(expected, abs=1e-9)
    assert loss.largest_error == max(loss.error, loss.group_error)
    assert Loss.of(other, full, [*names, "of a later question"]) == loss
    assert Loss.of(other, full) == Loss.of(other, full, ["one"] * len(names)) == Loss(loss.mean, loss.error)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**32))
def test_the_bound_is_the_larger_one_of_both_bootstraps(seed: int) -> None:
    full, other, names = articles([40] * 20, seed)
    lost = np.subtract(full.scores, other.scores)
    means = lost.reshape(20, 40).mean(1)  # articles of equal size: the mean of their means
    random = np.random.default_rng(1)
    over_articles = np.quantile([random.choice(means, 20).mean() for _ in range(4000)], 0.8)
    over_questions = np.quantile([random.choice(lost, len(lost)).mean() for _ in range(4000)], 0.8)
    width = Loss.of(other, full, names).largest_error
    assert loss_bound(other, full, names) == pytest.approx(max(over_articles, over_questions), abs=0.15 * width)
    assert loss_bound(other, full) == pytest.approx(over_questions, abs=0.1 * width)


def test_the_bound_is_about_the_standard_errors_above_the_mean() -> None:
    full, other, names = articles([40] * 24, 0)
    loss = Loss.of(other, full, names)
    assert loss.group_error > 2 * loss.error  # questions of an article are alike
    expected = loss.mean + ONE_SIDED * loss.group_error
    assert loss_bound(other, full, names) == pytest.approx(expected, abs=0.15 * loss.group_error)


def test_the_bound_holds_on_new_articles_where_that_over_questions_does_not() -> None:
    """How often the mean loss over all articles is within the bounds from 24 of them: 80 % are promised."""
    held = np.zeros(2)
    for seed in range(60):
        full, other, names = articles([30] * 24, seed, spread=10)
        held += loss_bound(other, full, names) >= 2, loss_bound(other, full) >= 2
    assert 0.68 <= held[0] / 60 <= 0.92
    assert held[1] / 60 < held[0] / 60 - 0.1
