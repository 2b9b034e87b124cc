"""The front, against naive loops; named points, against scipy's bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from dynamic_tinybert.calibration.search.front import choose_named, front, loss_bound
from dynamic_tinybert.calibration.search.trial import Trial, joined
from dynamic_tinybert.runtime.length_config import LengthConfig

CONFIG = LengthConfig((1.0,))


def trial(scores: list[float], latency_ms: float) -> Trial:
    return Trial(CONFIG, tuple(scores), macs=latency_ms, latency_ms=latency_ms)


def is_dominated(trial: Trial, trials: list[Trial]) -> bool:
    return any(
        other.score >= trial.score
        and other.latency_ms <= trial.latency_ms
        and (other.score > trial.score or other.latency_ms < trial.latency_ms)
        for other in trials
    )


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=20))
def test_front_holds_exactly_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    trials = [trial([float(f1)], latency) for f1, latency in points]
    found = front(trials)
    assert sorted(map(id, found)) == sorted(id(t) for t in trials if not is_dominated(t, trials))
    assert [t.latency_ms for t in found] == sorted(t.latency_ms for t in found)


def questions_losing(share: float, count: int = 400) -> list[float]:
    """F1 of questions of which `share` are wrong, in an order of its own."""
    scores = [0.0 if i < round(share * count) else 100.0 for i in range(count)]
    return [scores[i] for i in np.random.default_rng(round(1e6 * share)).permutation(count)]


FULL = trial([100.0] * 400, 10.0)


def test_loss_bound_is_the_one_sided_bootstrap_bound() -> None:
    full, other = trial(questions_losing(0.1), 10.0), trial(questions_losing(0.14), 5.0)
    lost = np.subtract(full.scores, other.scores)
    expected = bootstrap((lost,), np.mean, confidence_level=0.8, alternative="less", method="percentile", rng=0)
    assert loss_bound(other, full) == pytest.approx(expected.confidence_interval.high, abs=0.15)


def test_named_are_the_fastest_within_their_limits() -> None:
    # Wrong on 0.25 % to 4 % of the questions: the bounds are about 0.5, 1.4, 2.5 and 4.8.
    some = [trial(questions_losing(share), ms) for share, ms in [(0.0025, 8), (0.01, 6), (0.0175, 5), (0.04, 4)]]
    assert choose_named(some, FULL, {"accurate": 0.5, "balanced": 1.5, "fast": 2.5, "all": 5.0}) == {
        "accurate": some[0],
        "balanced": some[1],
        "fast": some[2],
        "all": some[3],
    }


def test_two_names_may_share_the_only_trial() -> None:
    only = trial(questions_losing(0.0025), 8)
    assert choose_named([only], FULL, {"accurate": 0.5, "fast": 2.5}) == {"accurate": only, "fast": only}


def test_the_mean_within_a_limit_is_not_enough() -> None:
    half = trial(questions_losing(0.005), 8)  # loses 0.5 on these questions; on others it may be more
    assert choose_named([half], FULL, {"accurate": 0.5, "balanced": 1.0}) == {"balanced": half}


def test_nothing_slower_than_full_gets_a_name() -> None:
    assert choose_named([FULL, trial([100.0] * 400, 11.0)], FULL) == {}


def test_joined_is_the_trial_on_all_questions() -> None:
    both = joined(
        Trial(CONFIG, (50.0,), macs=3.0, latency_ms=1.0), Trial(CONFIG, (80.0, 20.0), macs=6.0, latency_ms=4.0)
    )
    assert both.scores == (50.0, 80.0, 20.0)
    assert (both.macs, both.latency_ms) == (5.0, 3.0)
    assert math.isclose(both.score, 50.0)
