"""The front, against naive loops; named points, against scipy's bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from dynamic_tinybert.calibration.search.front import choose_named, front, to_time
from dynamic_tinybert.calibration.search.losses import loss_bound
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


ARTICLES = [f"article {i // 40}" for i in range(400)]


def test_a_name_holds_on_other_articles() -> None:
    """Both lose as much, but one of them on two of ten articles: on others it may be twice as much, or nothing."""
    evenly = trial([0.0 if i % 40 == 3 else 100.0 for i in range(400)], 6)
    unevenly = trial([0.0 if i in range(5) or i in range(40, 45) else 100.0 for i in range(400)], 5)
    assert evenly.score == unevenly.score == 97.5
    limits = {"some": 3.4}
    assert choose_named([evenly, unevenly], FULL, limits) == {"some": unevenly}
    assert choose_named([evenly, unevenly], FULL, limits, ARTICLES) == {"some": evenly}
    assert choose_named([evenly, unevenly], FULL, limits, ["one"] * 400) == {"some": unevenly}  # nothing to compare


def test_names_go_by_latency_and_not_only_to_the_front() -> None:
    """A trial may be dominated in the mean and yet be the fastest within a limit."""
    even = trial([97.6] * 400, 5.0)  # loses 2.4 for sure
    better = trial(questions_losing(0.0225), 4.9)  # 2.25, but perhaps 2.75
    assert better in front([even, better])
    assert even not in front([even, better])
    assert choose_named([even, better], FULL, {"fast": 2.5}) == {"fast": even}


def test_what_may_get_a_name_is_timed_and_some_of_the_front() -> None:
    some = [
        trial([100 - loss] * 400, latency)
        for loss, latency in [(0.2, 9), (0.3, 8), (0.9, 7), (0.95, 7.1), (0.6, 7.2), (2, 5), (4, 3), (5, 2.5), (8, 2)]
    ]
    some = [Trial(LengthConfig((1 - i / 100,)), t.scores, t.macs, t.latency_ms) for i, t in enumerate(some)]
    chosen = to_time(some, FULL, [0.5, 1.0], ARTICLES, 8)
    assert [t.latency_ms for t in chosen] == [2, 2.5, 5, 7, 7.1, 7.2, 8, 9]  # 7.1 is not on the front
    assert [t.latency_ms for t in to_time(some, FULL, [0.5, 1.0], ARTICLES, 2)] == [7, 8]
    assert len(to_time(some, FULL, [0.1], ARTICLES, 4)) == 4  # of the front alone
    assert to_time([], FULL, [0.5], ARTICLES, 4) == []


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
