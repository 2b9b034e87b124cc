"""Schedules: what repair guarantees for any genes, and what the search starts from."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynamic_tinybert.calibration.search.schedules import Schedule, ScheduleSpace
from dynamic_tinybert.calibration.search.seeds import ATTENTION, LEARNT, Seed, shares_at
from dynamic_tinybert.runtime.common.errors import InvalidInputError

any_genes = arrays(np.float64, (3, 6), elements=st.floats(-5, 3))


def decoded(space: ScheduleSpace, genes: npt.NDArray[np.float64]) -> list[Schedule]:
    return [space.decode(row) for row in genes]


@given(any_genes, st.sets(st.integers(0, 5), min_size=1), st.none() | st.integers(1, 4))
def test_repaired_genes_are_schedules_worth_measuring(
    genes: npt.NDArray[np.float64], selectable: set[int], most: int | None
) -> None:
    space = ScheduleSpace(6, LEARNT, selectable=selectable, most_selecting=most)
    free = ScheduleSpace(6, LEARNT, selectable=selectable)
    for schedule, other in zip(decoded(space, space.repair(genes)), decoded(free, free.repair(genes)), strict=True):
        assert len({1.0, *schedule.shares}) - 1 <= (most or 6)
        assert schedule.shares[-1] == other.shares[-1]
        if len({1.0, *other.shares}) - 1 <= (most or 6):
            assert schedule == other
        before = 1.0
        for layer, share in enumerate(schedule.shares):
            assert 0.05 <= share <= 1
            assert share == float(f"{share:.2f}")
            if share != before:
                assert layer in selectable
                assert share <= 0.985 * before
            before = share


@given(any_genes, st.none() | st.integers(1, 4))
def test_repair_leaves_what_is_repaired(genes: npt.NDArray[np.float64], most: int | None) -> None:
    space = ScheduleSpace(6, LEARNT, most_selecting=most)
    repaired = space.repair(genes)
    np.testing.assert_array_equal(space.repair(repaired), repaired)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((1.0, 0.9, 0.7, 0.5, 0.3, 0.12), (1.0, 0.9, 0.7, 0.5, 0.3, 0.12)),
        ((0.9, 1.0, 0.7, 0.8, 0.3, 0.12), (0.9, 0.9, 0.7, 0.7, 0.3, 0.12)),  # shares cannot grow
        ((0.99, 0.904, 0.9, 0.896, 0.5, 0.01), (1.0, 0.9, 0.9, 0.9, 0.5, 0.05)),  # nor is so little worth a selection
    ],
)
def test_repair_of_shares(shares: tuple[float, ...], expected: tuple[float, ...]) -> None:
    space = ScheduleSpace(6, ATTENTION)
    assert space.decode(space.repair(np.log([shares]))[0]) == Schedule(expected)


def test_known_schedules_hold_the_published_ones_as_ratios() -> None:
    space = ScheduleSpace(6, ATTENTION)
    known = decoded(space, space.known())
    for tokens in ((315, 251, 242, 159, 142, 33), (269, 253, 252, 202, 104, 34)):
        shares = [schedule.shares for schedule in known]
        assert any(np.allclose(np.array(tokens) / 384, found, atol=0.01) for found in shares)  # a step of the grid


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (4, {0: 0.5, 1: 0.4, 2: 0.25, 5: 0.12}),  # layer 4, which kept 0.96, is left out
        (3, {0: 0.5, 2: 0.25, 5: 0.12}),
        (2, {2: 0.25, 5: 0.12}),
        (1, {5: 0.12}),
    ],
)
def test_where_too_many_layers_select_those_that_drop_least_leave_it_to_the_next(
    most: int, expected: dict[int, float]
) -> None:
    space = ScheduleSpace(6, LEARNT, most_selecting=most)
    (found,) = decoded(space, space.repair(np.log([(0.5, 0.4, 0.25, 0.25, 0.24, 0.12)])))
    assert found == Schedule.of_layers(6, expected)


@pytest.mark.parametrize("num_layers", [1, 2, 4, 12, 24])
@pytest.mark.parametrize(("seeds", "most"), [(LEARNT, 3), (ATTENTION, None)])
def test_first_schedules_fit_other_depths(num_layers: int, seeds: tuple[Seed, ...], most: int | None) -> None:
    space = ScheduleSpace(num_layers, seeds, most_selecting=most)
    first = np.vstack([space.known(), space.random(20, np.random.default_rng(0))])
    np.testing.assert_array_equal(space.repair(first), first)
    assert len(np.unique(space.known(), axis=0)) == len(space.known())
    for schedule in decoded(space, first):
        assert len(schedule.shares) == num_layers
        assert len({1.0, *schedule.shares}) - 1 <= (most or num_layers)
    assert len({schedule.shares[-1] for schedule in decoded(space, first)}) > 5


@pytest.mark.parametrize(
    ("num_layers", "selecting"),
    [(6, {0: 0.33, 3: 0.24}), (12, {1: 0.33, 7: 0.24}), (24, {3: 0.33, 15: 0.24}), (4, {0: 0.33, 2: 0.24})],
)
def test_a_seed_drops_after_the_same_share_of_the_depth(num_layers: int, selecting: dict[int, float]) -> None:
    expected = Schedule.of_layers(num_layers, selecting)
    assert tuple(shares_at(LEARNT[0], num_layers)) == expected.shares
    space = ScheduleSpace(num_layers, LEARNT, most_selecting=3)
    assert decoded(space, space.known())[0] == expected


def test_seeds_of_scorers_have_few_of_them() -> None:
    counts = [len({1.0, *seed}) - 1 for seed in LEARNT]
    assert max(counts) == 3
    assert sum(count == 3 for count in counts) <= 2 < sum(count == 1 for count in counts)
    assert sum(count == 2 for count in counts) > len(counts) / 2


def test_where_a_layer_cannot_select_the_next_one_that_can_drops_what_the_seed_says() -> None:
    space = ScheduleSpace(6, LEARNT, selectable=[1, 4], most_selecting=3)
    assert decoded(space, space.known())[0] == Schedule.of_layers(6, {1: 0.33, 4: 0.24})


def test_features_tell_which_layers_select() -> None:
    space = ScheduleSpace(3, ATTENTION)
    genes = space.repair(np.log([(1, 0.5, 0.5), (1, 0.5, 0.25)]))
    expected = [
        [0, math.log(0.5), math.log(0.5), 0, 0.2, 0],
        [0, math.log(0.5), math.log(0.25), 0, 0.2, 0.2],
    ]
    np.testing.assert_allclose(space.features(genes), expected, atol=1e-12)


def test_a_space_in_which_no_layer_may_select_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="selectable"):
        ScheduleSpace(6, LEARNT, selectable=[])
    with pytest.raises(InvalidInputError, match="most_selecting is 0"):
        ScheduleSpace(6, LEARNT, most_selecting=0)
