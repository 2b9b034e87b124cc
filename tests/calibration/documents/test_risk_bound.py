"""The margin bounds the risk that the first places change, whatever the distribution of needed margins."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.calibration.documents.bound import allowed_changes, fewest_queries, interval, margin_of
from dynamic_tinybert.runtime.common.errors import DataError


def binomial_cdf(count: int, queries: int, risk: float) -> float:
    """Summed term by term, as a reference for what is computed by scipy."""
    return sum(math.comb(queries, k) * risk**k * (1 - risk) ** (queries - k) for k in range(count + 1))


@settings(max_examples=60)
@given(st.integers(1, 400), st.floats(0.005, 0.5), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_most_changes_that_are_evidence(queries: int, risk: float, confidence: float) -> None:
    found = allowed_changes(queries, risk, confidence)
    allowed = [k for k in range(queries + 1) if binomial_cdf(k, queries, risk) <= 1 - confidence]
    assert found == (max(allowed) if allowed else None)
    assert (found is not None) == (queries >= fewest_queries(risk, confidence))


def test_numbers_that_are_known() -> None:
    assert fewest_queries(0.01) == 299  # Wilks
    assert [allowed_changes(n, 0.01) for n in (298, 299, 472, 473)] == [None, 0, 0, 1]
    assert interval(0, 300)[0] == 0
    assert interval(0, 300)[1] == pytest.approx(1 - 0.025 ** (1 / 300))
    low, high = interval(5, 500)  # of statistical tables
    assert (low, high) == pytest.approx((0.00325, 0.02319), abs=1e-4)
    assert interval(3, 3)[1] == 1


def test_too_few_queries_are_refused_with_the_number_needed() -> None:
    with pytest.raises(DataError, match=r"a risk of 0.01 cannot be bounded with 298 .* at least 299"):
        margin_of([0.0] * 298, 0.01)
    assert margin_of([float(i) for i in range(299)], 0.01) == 298


@settings(max_examples=40)
@given(st.lists(st.floats(0, 100), min_size=30, max_size=200), st.sampled_from([0.1, 0.2, 0.3]))
def test_it_is_the_smallest_margin_that_few_enough_queries_exceed(needed: list[float], risk: float) -> None:
    changes = allowed_changes(len(needed), risk)
    assert changes is not None
    enough = [margin for margin in needed if sum(own > margin for own in needed) <= changes]
    assert margin_of(needed, risk) == min(enough)


@pytest.mark.parametrize("shape", ["uniform", "mostly 0", "heavy tail"])
def test_the_risk_is_kept_as_often_as_promised(shape: str) -> None:
    """Calibrations on 100 queries each, of distributions whose true risk is known: 5 % of them may fail."""
    random, risk, rounds = np.random.default_rng(0), 0.1, 4000
    draws = random.random((rounds, 100))
    quantile = {
        "uniform": lambda u: u,
        "mostly 0": lambda u: np.maximum(0, u - 0.8),
        "heavy tail": lambda u: u / (1 - u),
    }
    needed = quantile[shape](draws)
    margins = np.array([margin_of(own.tolist(), risk) for own in needed])
    limit = quantile[shape](np.array(1 - risk))  # the smallest margin that keeps the risk
    failed = (margins < limit).mean()
    assert failed <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)
    assert failed > 0.01  # and it is no larger than that takes
