"""Schedules: what repair guarantees for any genes, and what the search starts from."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynamic_tinybert.calibration.search.schedules import Schedule, ScheduleSpace
from dynamic_tinybert.runtime.common.errors import InvalidInputError

any_genes = arrays(np.float64, (3, 6), elements=st.floats(-5, 3))


def decoded(space: ScheduleSpace, genes: npt.NDArray[np.float64]) -> list[Schedule]:
    return [space.decode(row) for row in genes]


@given(any_genes, st.sets(st.integers(0, 5), min_size=1))
def test_repaired_genes_are_schedules_worth_measuring(genes: npt.NDArray[np.float64], selectable: set[int]) -> None:
    space = ScheduleSpace(6, selectable=selectable)
    for schedule in decoded(space, space.repair(genes)):
        before = 1.0
        for layer, share in enumerate(schedule.shares):
            assert 0.05 <= share <= 1
            assert share == float(f"{share:.2f}")
            if share != before:
                assert layer in selectable
                assert share <= 0.985 * before
            before = share


@given(any_genes)
def test_repair_leaves_what_is_repaired(genes: npt.NDArray[np.float64]) -> None:
    space = ScheduleSpace(6)
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
    space = ScheduleSpace(6)
    assert space.decode(space.repair(np.log([shares]))[0]) == Schedule(expected)


def test_known_schedules_hold_the_published_ones_as_ratios() -> None:
    space = ScheduleSpace(6)
    known = decoded(space, space.known())
    for tokens in ((315, 251, 242, 159, 142, 33), (269, 253, 252, 202, 104, 34)):
        shares = [schedule.shares for schedule in known]
        assert any(np.allclose(np.array(tokens) / 384, found, atol=0.01) for found in shares)  # a step of the grid


@pytest.mark.parametrize("num_layers", [1, 2, 4, 12, 24])
def test_first_schedules_fit_other_depths(num_layers: int) -> None:
    space = ScheduleSpace(num_layers)
    first = np.vstack([space.known(), space.random(20, np.random.default_rng(0))])
    np.testing.assert_array_equal(space.repair(first), first)
    for schedule in decoded(space, first):
        assert len(schedule.shares) == num_layers
    assert len({schedule.shares[-1] for schedule in decoded(space, first)}) > 5


def test_features_tell_which_layers_select() -> None:
    space = ScheduleSpace(3)
    genes = space.repair(np.log([(1, 0.5, 0.5), (1, 0.5, 0.25)]))
    expected = [
        [0, math.log(0.5), math.log(0.5), 0, 0.2, 0],
        [0, math.log(0.5), math.log(0.25), 0, 0.2, 0.2],
    ]
    np.testing.assert_allclose(space.features(genes), expected, atol=1e-12)


def test_a_space_in_which_no_layer_may_select_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="selectable"):
        ScheduleSpace(6, selectable=[])
