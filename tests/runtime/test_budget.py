"""The choice of a length configuration, by properties that hold for any candidates."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.budget import Candidate, Limits, check_figures, choose, f1_losses
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig

TIMES = st.one_of(st.floats(0.01, 100), st.integers(1, 4).map(float))  # a few values come often, so that there are ties
LOSSES = st.one_of(st.none(), st.floats(-2, 10), st.integers(0, 3).map(float))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Configurations of a bundle; `full` loses 0."""
    others = draw(st.lists(st.tuples(TIMES, LOSSES), max_size=6))
    named = [Candidate(f"c{k}", ms, loss) for k, (ms, loss) in enumerate(others)]
    return draw(st.permutations([Candidate("full", draw(TIMES), 0.0), *named]))


def allowed(of: Sequence[Candidate], limit: float | None) -> list[Candidate]:
    return [c for c in of if limit is None or (c.f1_loss is not None and c.f1_loss <= limit)]


@given(candidates(), TIMES, st.one_of(st.none(), st.floats(0, 10)))
def test_with_a_budget_the_most_accurate_that_fits(of: list[Candidate], budget: float, limit: float | None) -> None:
    choice = choose(of, Limits(budget, limit))
    chosen, may = choice.candidate, allowed(of, limit)
    assert chosen in may
    fitting = [c for c in may if c.ms <= budget]
    assert choice.fits == bool(fitting)
    if not fitting:
        assert chosen.ms == min(c.ms for c in may)
        return
    assert chosen.ms <= budget
    known = [c for c in fitting if c.f1_loss is not None]
    if known:
        assert chosen.f1_loss == min(c.f1_loss for c in known if c.f1_loss is not None)
        assert chosen.ms == min(c.ms for c in known if c.f1_loss == chosen.f1_loss)
    else:  # the slowest is taken for the most accurate
        assert chosen.ms == max(c.ms for c in fitting)


@given(candidates(), st.floats(0, 10))
def test_without_a_budget_the_fastest_within_the_loss(of: list[Candidate], limit: float) -> None:
    choice = choose(of, Limits(max_f1_loss=limit))
    may = allowed(of, limit)
    assert choice.fits
    assert choice.candidate in may
    assert choice.candidate.ms == min(c.ms for c in may)


@given(candidates(), TIMES, TIMES)
def test_a_larger_budget_never_loses_more(of: list[Candidate], one: float, other: float) -> None:
    small, large = (choose(of, Limits(budget)) for budget in sorted((one, other)))
    if small.fits:
        assert large.fits
        losses = [math.inf if c.candidate.f1_loss is None else c.candidate.f1_loss for c in (small, large)]
        assert losses[1] <= losses[0]


@given(candidates(), st.floats(0, 10), st.floats(0, 10))
def test_a_larger_loss_is_never_slower(of: list[Candidate], one: float, other: float) -> None:
    small, large = (choose(of, Limits(max_f1_loss=limit)) for limit in sorted((one, other)))
    assert large.candidate.ms <= small.candidate.ms


def test_candidates_that_all_lose_too_much() -> None:
    with pytest.raises(InvalidInputError, match=r"at most max_f1_loss=0.5"):
        choose([Candidate("fast", 1, 2)], Limits(max_f1_loss=0.5))


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, -math.inf, 10**400, "20", True, [20], 1j, b"1"])
def test_budgets_that_are_none(value: float) -> None:
    with pytest.raises(InvalidInputError, match=r"^budget_ms must be"):
        Limits(budget_ms=value)


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, "1", False, {}])
def test_losses_that_are_none(value: float) -> None:
    with pytest.raises(InvalidInputError, match=r"^max_f1_loss must be"):
        Limits(max_f1_loss=value)


def test_numbers_of_any_kind() -> None:
    for value in (20, 0.5, np.float32(3), np.int64(7)):
        Limits(budget_ms=value, max_f1_loss=value)
    Limits(max_f1_loss=0)


HALF = LengthConfig((1, 0.5))


def test_the_loss_is_the_pessimistic_end_of_the_interval() -> None:
    configs = {
        "full": NamedLengthConfig(LengthConfig.full(2)),
        "fast": NamedLengthConfig(HALF, {"f1_against_full": [-0.8, -1.48, -0.11]}),
        "better": NamedLengthConfig(HALF, {"f1_against_full": [2, 1, 3]}),
    }
    assert f1_losses(configs) == {"full": 0.0, "fast": 1.48, "better": -1.0}


@pytest.mark.parametrize(
    "figure",
    [None, 1.0, "1", [], [1.0], [None, None, None], ["a", "b", "c"], [0, math.nan, 1], [0, -(10**400), 1]],
    ids=lambda figure: repr(figure)[:20],
)
def test_figures_may_be_anything(figure: object) -> None:
    measured = {"f1_against_full": figure}
    full = NamedLengthConfig(LengthConfig.full(2), measured)
    losses = f1_losses({"full": full, "half": NamedLengthConfig(HALF, measured)})
    assert losses == {"full": 0.0, "half": None}
    with pytest.raises(InvalidInputError, match=r"what half lose, and this bundle has no f1_against_full"):
        check_figures(losses)


def test_figures_are_needed_for_other_configurations_only() -> None:
    check_figures({"full": 0.0})
    check_figures({"full": 0.0, "fast": 1.0, "half": None})
