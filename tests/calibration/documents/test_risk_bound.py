"""A bound of the mean loss from held-out queries, whatever the distribution of losses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dynamic_tinybert.calibration.documents.bound import fewest_queries, largest_mean


def p_value(mean: float, queries: int, risk: float) -> float:
    """Hoeffding's and Bentkus' p-value of "the expected loss is above the risk", as in the paper."""
    low = min(mean, risk)
    heads = low * math.log(low / risk) if low else 0.0
    hoeffding = math.exp(-queries * (heads + (1 - low) * math.log((1 - low) / (1 - risk))))
    return float(min(hoeffding, math.e * binom.cdf(math.ceil(queries * mean - 1e-9), queries, risk)))


@settings(max_examples=80)
@given(st.integers(1, 3000), st.floats(0.005, 0.5), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_it_is_the_largest_mean_that_is_evidence(queries: int, risk: float, confidence: float) -> None:
    found = largest_mean(queries, risk, confidence)
    assert (found is not None) == (queries >= fewest_queries(risk, confidence))
    if found is not None:
        assert 0 <= found <= risk
        assert p_value(found, queries, risk) <= (1 - confidence) * (1 + 1e-6)
        assert p_value(found + 1e-4, queries, risk) > (1 - confidence) * (1 - 1e-6)


def test_numbers_that_are_known() -> None:
    assert fewest_queries(0.01) == 299  # Wilks: all of them without a loss
    assert largest_mean(298, 0.01) is None
    assert largest_mean(299, 0.01) == pytest.approx(0, abs=1e-5)
    assert fewest_queries(1e-17) > 1e17


@pytest.mark.parametrize("shape", ["all or nothing", "small", "mostly 0"])
def test_the_risk_is_kept_as_often_as_promised(shape: str) -> None:
    """Losses whose expectation is just above the risk are taken for smaller ones in at most 5 % of 2,000 draws."""
    random, queries, risk = np.random.default_rng(0), 400, 0.05
    above = 1.02 * risk
    draws = {
        "all or nothing": lambda: random.random((2000, queries)) < above,
        "small": lambda: random.uniform(0, 2 * above, (2000, queries)),
        "mostly 0": lambda: (random.random((2000, queries)) < 2 * above) * random.random((2000, queries)),
    }
    largest = largest_mean(queries, risk)
    assert largest is not None
    wrong = (draws[shape]().mean(1) <= largest).mean()
    assert wrong <= 0.05
    if shape == "all or nothing":
        assert wrong > 0.005  # the bound is no wider than it has to be
