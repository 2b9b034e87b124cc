"""The policy by which budgets are chosen under load, as a pure function and in a simulated queue."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.budget import Candidate, Limits
from dynamic_tinybert.serving.learnt import LARGEST_RESERVE, Price, Reserve, Slowness, reserve_against_lateness
from dynamic_tinybert.serving.pressure import Batch, Queue, Waiting, choose_under_pressure, is_at_risk, is_hopeless

from support.queue_simulation import LENGTHS_MS, LOSSES, SPEED, simulate

FULL_MS = 40.0
MS = {name: [FULL_MS * share] for name, share in SPEED.items()}
PAGES = {name: [ms / 4] * 4 for name, (ms,) in MS.items()}
"""The same time in four batches."""
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
    return choose_under_pressure(Waiting(MS, slack_ms), LOSSES, limits, Queue(others, slowness or exact()))


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
    assert chosen(1000, [Waiting({"full": [70.0]}), Waiting(MS, 140)]) == "accurate"  # one without a budget in between


def test_a_request_without_a_budget_is_not_affected() -> None:
    waiting = Queue([Waiting(MS, 10)] * 5, exact())
    only_loss = Limits(None, 0.4)
    own = Waiting({name: MS[name] for name in ("full", "accurate")})
    assert choose_under_pressure(own, LOSSES, only_loss, waiting) == "accurate"
    assert choose_under_pressure(Waiting({"full": [40.0]}), LOSSES, Limits(None, 0), waiting) == "full"


def test_a_document_leaves_and_needs_time_for_the_turns_of_others() -> None:
    limits = Limits(1000.0)
    document = Waiting(PAGES, 79)
    assert choose_under_pressure(document, LOSSES, limits, Queue([], exact())) == "full"
    assert choose_under_pressure(document, LOSSES, limits, Queue([Waiting(MS)], exact())) == "accurate"
    behind = Queue([Waiting(MS, 50)], exact())  # waits for a quarter of the document only
    assert choose_under_pressure(Waiting(PAGES, 500), LOSSES, limits, behind) == "full"
    assert not is_hopeless(Waiting(MS, 50), [Waiting({"full": [25.0] * 4})], 0, exact())
    assert is_hopeless(Waiting(MS, 50), [Waiting({"full": [100.0]})], 0, exact())
    assert is_hopeless(Waiting(MS, 50), [], 30, exact())
    assert not is_hopeless(Waiting(MS), [Waiting({"full": [1e9]})], 30, exact())
    assert not is_hopeless(Waiting(MS, 1), [], 0, exact())  # alone


def at_price(share: float, losses: Mapping[str, float | None], slack_ms: float = 1000) -> str:
    """The choice at a share of the highest price."""
    price = Price()
    for _ in range(round(share / 0.047)):
        for refused in (True, False, False):  # no more than a third
            price.learn(refused=refused)
    return choose_under_pressure(Waiting(MS, slack_ms), losses, Limits(1000.0), Queue([], exact()), price)


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
        price.note(2)
        assert price.of_ms([Candidate("full", 4, 0.0), Candidate("fast", 2, 2.0)]) > 0.09
    assert price.of_ms(candidates) == pytest.approx(1, rel=0.5)  # what it brings to the latest requests
    for _ in range(100):
        price.learn(refused=True)
    assert price.of_ms(candidates) > 2


def test_those_without_a_choice_do_not_make_time_dearer() -> None:
    candidates = [Candidate("full", 40, 0.0), Candidate("fast", 20, 2.0)]
    price = Price()
    price.note(20)
    for _ in range(1000):
        price.learn(refused=False)
        price.learn(refused=True)
        before = price.of_ms(candidates)
        price.note(0)
        assert price.of_ms([Candidate("full", 40, 0.0)]) == 0
        assert price.of_ms(candidates) == before  # asking teaches nothing
    only_dear = Price()
    for refused in (True, False, False) * 300:
        only_dear.note(0)
        only_dear.note(20)
        only_dear.learn(refused=refused)
    assert only_dear.of_ms(candidates) <= 0.1 * 1.2  # what a millisecond brings, and little more at just a third


def joins(batch: list[Waiting], joining: Waiting, others: list[Waiting]) -> bool:
    """Whether the last may join, in a queue in which it is the first."""
    queue = Queue([joining, *others], exact())
    (first, *more), whole = batch, Queue([joining, *batch[1:], *others], exact())
    shared = Batch(first, whole if more else queue)
    assert all(shared.add(one, at) for at, one in enumerate(more, start=1))
    may = shared.has_time(joining) and shared.add(joining, 0)
    assert (whole if more else queue).is_empty() == (may and not others)
    return may


def test_who_joins_a_batch_makes_nobody_late() -> None:
    batch, joining = [Waiting({"fast": [20.0]}, 50)], Waiting({"fast": [20.0]}, 100)
    assert joins(batch, joining, [])
    assert joins(batch, joining, [Waiting(MS, 70)])
    assert not joins(batch, joining, [Waiting(MS, 60)])
    assert joins(batch, joining, [Waiting(MS, 40)])  # that one is late anyhow
    assert not joins([Waiting({"fast": [20.0]}, 39)], joining, [])
    assert joins([Waiting({"fast": [20.0]}, 19)], joining, [])
    assert joins(batch, joining, [Waiting({"full": [500.0]})] * 3)  # these have time
    assert joins([*batch, Waiting({"fast": [10.0]}, 50)], joining, [])
    assert not joins([*batch, Waiting({"fast": [11.0]}, 51)], joining, [])


def test_who_has_joined_a_batch_is_waited_for_no_more() -> None:
    queue = Queue([Waiting({"fast": [20.0]}), Waiting(MS, 70)], exact())
    late = [queue.late(30, "full").tolist(), queue.late(30, "full", without=0).tolist()]
    assert late == [[False, True], [False, False]]
    queue.take(0)
    assert queue.late(30, "full").tolist() == [False, False]
    assert not queue.is_empty()
    assert queue.is_empty(without=1)


def test_who_runs_late_for_a_budget_is_run_all_the_same() -> None:
    own = Waiting({"full": [20.0], "fast": [10.0]}, 50, 100)
    assert is_hopeless(own, [Waiting({"full": [20.0], "fast": [10.0]}, 20)] * 99, 0, exact())
    given_up = Waiting({"full": [20.0], "fast": [10.0]}, 20, 40)
    assert not is_hopeless(own, [given_up] * 4, 0, exact())
    assert not is_hopeless(own, [given_up] * 99, 0, exact())  # the fifth and all further ones are given up
    only_reserved = Waiting({"full": [20.0], "fast": [10.0]}, 20, 1000)
    assert is_hopeless(own, [only_reserved] * 5, 0, exact())


def test_batches_count_as_they_are() -> None:
    document = Waiting({"full": [44.0, 234.0], "fast": [22.0, 117.0]})
    assert (document.turns, sum(document.fastest), sum(document.slowest)) == (2, 139, 278)
    assert not is_hopeless(Waiting({"fast": [10.0]}, 33), [document], 0, exact())
    assert is_hopeless(Waiting({"fast": [10.0]}, 31), [document], 0, exact())
    assert Queue([document, Waiting(MS, 86)], exact()).late(2, "full").tolist() == [False, False]
    assert Queue([document, Waiting(MS, 85)], exact()).late(2, "full").tolist() == [False, True]


@pytest.mark.parametrize("share_tight", [1.0, 0.2, 0.05])
def test_requests_that_have_much_time_say_nothing_about_those_that_have_little(share_tight: float) -> None:
    generator = np.random.default_rng(0)
    reserve, late = reserve_against_lateness(), []
    ahead, slowness = [Waiting(MS, 100, 100)] * 8, exact()
    for k in range(int(20_000 / share_tight)):
        tight = bool(generator.random() < share_tight)
        own = Waiting(MS, math.inf, 160.0 if tight else 60_000.0)
        happened = tight and bool(generator.random() < max(0, 0.4 - reserve.share))
        assert is_at_risk(own, ahead, 0, slowness) == tight
        if tight:
            reserve.learn(happened=happened)
        if tight and k > 5_000 / share_tight:
            late.append(happened)
    assert np.mean(late) == pytest.approx(0.003, abs=0.0015)


@given(
    slack=st.floats(-10, 300),
    share=st.floats(0, LARGEST_RESERVE),
    ahead=st.lists(st.tuples(st.floats(-10, 500), st.floats(0, 1000), st.integers(1, 5)), max_size=9),
    running=st.floats(0, 100),
)
def test_what_is_refused_was_at_risk(
    slack: float, share: float, ahead: list[tuple[float, float, int]], running: float
) -> None:
    own = Waiting(MS, slack * (1 - share), slack)
    others = [Waiting({n: [ms / turns] * turns for n, (ms,) in MS.items()}, s, d) for s, d, turns in ahead]
    if is_hopeless(own, others, running, exact()):
        assert is_at_risk(own, others, running + 1e-9, exact())


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
    if slack < slowness.upper * MS["fast"][0]:
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
