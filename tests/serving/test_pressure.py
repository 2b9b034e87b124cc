"""The policy by which budgets are chosen under load, as a pure function and in a simulated queue."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.budget import Candidate, Limits
from dynamic_tinybert.serving.pressure import (
    Price,
    Reserve,
    Slowness,
    Waiting,
    choose_under_pressure,
    is_hopeless,
    may_join,
)

from support.queue_simulation import LENGTHS_MS, LOSSES, SPEED, simulate

FULL_MS = 40.0
MS = {name: FULL_MS * share for name, share in SPEED.items()}
ORDER = list(SPEED)  # the most accurate first, which is also the slowest


def exact() -> Slowness:
    """Predictions that hold."""
    slowness = Slowness()
    for _ in range(200):
        slowness.learn(10, 10)
    assert (slowness.typical, slowness.upper) == (1, 1)
    return slowness


def chosen(slack_ms: float, others: list[Waiting], slowness: Slowness | None = None) -> str:
    limits = Limits(1000.0, 100)
    return choose_under_pressure(Waiting(MS, slack_ms), LOSSES, limits, others, slowness or exact())


def test_alone_it_is_the_most_accurate_that_fits() -> None:
    assert [chosen(slack, []) for slack in (100, 40, 39, 31, 30, 22, 21, 1, -5)] == [
        *["full"] * 2,
        *["accurate", "balanced", "balanced"],
        *["fast"] * 4,
    ]


def test_those_behind_need_to_fit_too() -> None:
    assert chosen(1000, [Waiting(MS, 80)]) == "full"
    assert chosen(1000, [Waiting(MS, 79)]) == "accurate"
    assert chosen(1000, [Waiting(MS, 1000), Waiting(MS, 95)]) == "balanced"
    assert chosen(1000, [Waiting(MS, 50)]) == "fast"
    assert chosen(1000, [Waiting(MS, 5)]) == "full"  # nothing helps that one
    assert chosen(1000, [Waiting(MS)] * 50) == "full"  # these have time
    assert chosen(1000, [Waiting({"full": 70.0}), Waiting(MS, 140)]) == "accurate"  # one without a budget in between


def test_a_request_without_a_budget_is_not_affected() -> None:
    waiting = [Waiting(MS, 10)] * 5
    only_loss = Limits(None, 0.4)
    own = Waiting({name: MS[name] for name in ("full", "accurate")})
    assert choose_under_pressure(own, LOSSES, only_loss, waiting, exact()) == "accurate"
    assert choose_under_pressure(Waiting({"full": 40.0}), LOSSES, Limits(None, 0), waiting, exact()) == "full"


def test_a_document_leaves_and_needs_time_for_the_turns_of_others() -> None:
    limits = Limits(1000.0)
    document = Waiting(MS, 79, turns=4)
    assert choose_under_pressure(document, LOSSES, limits, [], exact()) == "full"
    assert choose_under_pressure(document, LOSSES, limits, [Waiting(MS)], exact()) == "accurate"
    behind = Waiting(MS, 50)  # waits for a quarter of the document only
    assert choose_under_pressure(Waiting(MS, 500, turns=4), LOSSES, limits, [behind], exact()) == "full"
    assert not is_hopeless(Waiting(MS, 50), [Waiting({"full": 100.0}, turns=4)], 0, exact())
    assert is_hopeless(Waiting(MS, 50), [Waiting({"full": 100.0})], 0, exact())
    assert is_hopeless(Waiting(MS, 50), [], 30, exact())
    assert not is_hopeless(Waiting(MS), [Waiting({"full": 1e9})], 30, exact())
    assert not is_hopeless(Waiting(MS, 1), [], 0, exact())  # alone


def at_price(share: float, losses: Mapping[str, float | None], slack_ms: float = 1000) -> str:
    """The choice at a share of the highest price."""
    price = Price()
    for _ in range(round(share / 0.047)):
        for refused in (True, False, False):  # no more than a third
            price.learn(refused=refused)
    return choose_under_pressure(Waiting(MS, slack_ms), losses, Limits(1000.0), [], exact(), price)


def test_the_more_time_costs_the_more_accuracy_must_it_bring() -> None:
    mean = 1.48 / (1 - SPEED["fast"])  # points for all of the time of `full`
    small = {"full": 0.0, "accurate": 0.2 * 0.19 * mean, "balanced": 0.5 * 0.25 * mean, "fast": 1.48}
    assert [at_price(share, small) for share in (0, 0.15, 0.25, 1)] == ["full", "full", "accurate", "accurate"]
    assert at_price(1, {**small, "accurate": 0.9 * 0.19 * mean}) == "balanced"
    assert at_price(1, small, slack_ms=25) == "fast"  # nothing else fits


def test_configurations_of_unknown_loss_are_the_last() -> None:
    unknown = dict.fromkeys(LOSSES)
    assert at_price(0, unknown) == "full"
    assert at_price(0, {**unknown, "full": 0.0, "fast": 5.0}, slack_ms=39) == "fast"
    assert at_price(0, {**unknown, "full": 0.0}, slack_ms=39) == "accurate"


def test_only_refusals_make_time_cost_something() -> None:
    price, candidates = Price(), [Candidate("full", 40, 0.0), Candidate("fast", 20, 2.0)]
    for _ in range(100):
        price.learn(refused=False)
    assert price.of_ms(candidates) == 0
    for _ in range(300):
        for refused in (True, False, False, False):
            price.learn(refused=refused)
    assert price.of_ms(candidates) == pytest.approx(0.1, rel=0.03)  # what a millisecond brings
    assert price.of_ms([Candidate("full", 40, 0.0)]) == 0
    assert Price().of_ms([Candidate("full", 40, 0.0)]) == 0
    for _ in range(300):
        assert price.of_ms([Candidate("full", 4, 0.0), Candidate("fast", 2, 2.0)]) > 0.09
    assert price.of_ms(candidates) == pytest.approx(1, rel=0.5)  # what it brings to the latest requests
    for _ in range(100):
        price.learn(refused=True)
    assert price.of_ms(candidates) > 2


def test_who_joins_a_batch_makes_nobody_late() -> None:
    batch, joining = [Waiting({"fast": 20.0}, 50)], Waiting({"fast": 20.0}, 100)
    assert may_join(batch, joining, [], exact())
    assert may_join(batch, joining, [Waiting(MS, 70)], exact())
    assert not may_join(batch, joining, [Waiting(MS, 60)], exact())
    assert may_join(batch, joining, [Waiting(MS, 40)], exact())  # that one is late anyhow
    assert not may_join([Waiting({"fast": 20.0}, 39)], joining, [], exact())
    assert may_join([Waiting({"fast": 20.0}, 19)], joining, [], exact())
    assert may_join(batch, joining, [Waiting({"full": 500.0})] * 3, exact())  # these have time


@pytest.mark.parametrize("needed", [0.0, 0.3, 0.55])
def test_a_reserve_settles_where_the_wanted_share_is_met(needed: float) -> None:
    generator = np.random.default_rng(0)
    reserve = Reserve(0.01, step=0.05, first=0.1, largest=0.6)
    happened = []
    for _ in range(30000):
        happens = bool(generator.normal(needed, 0.1) > reserve.share)
        reserve.learn(happened=happens)
        assert 0 <= reserve.share <= 0.6
        happened.append(happens)
    assert np.mean(happened) == pytest.approx(0.01, abs=0.002) or (needed == 0.55 and reserve.share > 0.59)


def test_slowness_is_learnt() -> None:
    slowness = Slowness()
    slowness.learn(0, 5)  # nothing was predicted
    assert slowness.typical == pytest.approx(1, abs=0.05)
    assert slowness.upper == 1.25
    for turn in range(128):
        slowness.learn(10, 40 if turn % 10 == 0 else 20)
    assert slowness.typical == pytest.approx(2.2, abs=0.05)
    assert slowness.upper == 4
    for _ in range(128):
        slowness.learn(10, 5)
    assert (slowness.typical, slowness.upper) == (0.5, 0.5)
    assert chosen(21, [], slowness) == "full"


def test_predictions_that_were_too_long_do_not_refuse_for_ever() -> None:
    slowness = Slowness()
    for _ in range(200):
        slowness.learn(1, 1000)
    assert is_hopeless(Waiting(MS, 200), [Waiting(MS)], 0, slowness)
    for _ in range(200):
        assert not is_hopeless(Waiting(MS, 200), [], 0, slowness)
        slowness.learn(1, 1)
    assert not is_hopeless(Waiting(MS, 200), [Waiting(MS)], 0, slowness)


@given(
    slack=st.floats(-10, 300),
    slacks=st.lists(st.one_of(st.just(math.inf), st.floats(-10, 500)), max_size=12),
    proportions=st.lists(st.floats(0.2, 5), max_size=200),
)
def test_more_that_wait_never_make_it_slower(slack: float, slacks: list[float], proportions: list[float]) -> None:
    slowness = Slowness()
    for proportion in proportions:
        slowness.learn(1, proportion)
    assert slowness.typical <= slowness.upper + 1e-9
    others = [Waiting(MS, own) for own in slacks]
    alone = chosen(slack, [], slowness)
    name = chosen(slack, others, slowness)
    assert ORDER.index(name) >= ORDER.index(alone)
    if slack < slowness.upper * MS["fast"]:
        assert name == "fast"


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6), noise=st.floats(0, 0.25), slower=st.floats(0.7, 1.5), stalls=st.sampled_from([0, 0.02])
)
def test_nearly_all_accepted_requests_meet_their_budget(seed: int, noise: float, slower: float, stalls: float) -> None:
    budget_ms = 4 * sorted(LENGTHS_MS)[3] * slower
    outcome = simulate(1.5, requests=3000, budget_ms=budget_ms, noise=noise, slower=slower, stalls=stalls, seed=seed)
    assert outcome.share_met >= 0.99
    assert outcome.refused < 0.2 * 3000
    assert outcome.longest_queue < 30
    assert min(outcome.chosen[name] for name in ("full", "fast")) > 0


@pytest.mark.parametrize("load", [0.2, 0.5])
def test_without_pressure_full_runs_and_hardly_anything_is_refused(load: float) -> None:
    outcome = simulate(load)
    assert outcome.share_met > 0.999
    assert outcome.refused < 0.005 * 4000  # at the beginning, while the reserve is large
    assert outcome.chosen["full"] > 0.9 * outcome.chosen.total()


def test_without_budgets_the_queue_grows_until_requests_are_refused() -> None:
    outcome = simulate(1.5, budget_ms=None)
    assert outcome.longest_queue == 128
    assert outcome.refused > 500
    assert set(outcome.without_budget) == {"full"}


def test_far_too_many_requests_are_refused_and_the_others_served() -> None:
    outcome = simulate(3)
    assert outcome.share_met > 0.99
    assert outcome.refused > 1000
    served = outcome.met + outcome.late
    assert served > 0.6 / SPEED["fast"] * 4000 / 3  # most of what the fastest configuration could serve
    assert simulate(3, refuses=False).share_met < 0.1  # what refusing is for
