"""The search for an INT8 setting, over landscapes whose best setting is known."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.calibration.int8.tuning import LEAST_GAIN, Int8Change, Int8Setting, Step, chosen, tune

MACS = {f"linear.{i}": 100 * (i + 1) for i in range(8)}  # 3,600 in all


def change(moved: float, f1: tuple[float, float, float] | None = None) -> Int8Change:
    return Int8Change(moved, logit_error=moved / 50, same_answers=100 - moved, f1=f1, questions=10)


class Landscape:
    """Probability moved, by an arbitrary formula; remembers what was tried."""

    def __init__(self, damage: Mapping[str, float], f1: tuple[float, float, float] | None = None) -> None:
        self.damage, self.f1 = damage, f1
        self.tried: list[tuple[Int8Setting, int | None]] = []

    def __call__(self, setting: Int8Setting, limit: int | None = None) -> Int8Change:
        self.tried.append((setting, limit))
        strength = 2.0 if setting.smooth_alpha is None else abs(setting.smooth_alpha - 0.7)
        ranges = {"moving-average": 0.5, "extremes": 0.25, "histogram": 1.0}[setting.ranges]
        damage = sum(d for name, d in self.damage.items() if name not in setting.fp32_linears)
        return change(strength + ranges + 64 / setting.num_samples + damage, self.f1)


def search(landscape: Landscape, more_samples: int = 512) -> list[Step]:
    return tune(landscape, num_samples=128, more_samples=more_samples, macs=MACS)


def test_each_step_is_taken_from_the_best_before_it() -> None:
    landscape = Landscape({})
    steps = search(landscape)
    assert chosen(steps).setting == Int8Setting(0.7, "extremes", 512)
    assert chosen(steps).change.moved == pytest.approx(0.25 + 64 / 512)
    assert [step.setting.smooth_alpha for step in steps] == [None, 0.5, 0.6, 0.7, 0.8, 0.9, 0.7, 0.7, 0.7]
    assert [step.kept for step in steps] == [True, True, True, True, False, False, True, False, True]
    gains = [step.gain for step in steps if step.kept and step.gain is not None]
    assert steps[0].change.moved - sum(gains) == pytest.approx(chosen(steps).change.moved)
    assert [limit for _, limit in landscape.tried] == [None] * len(steps)


def test_no_more_windows_than_there_are() -> None:
    steps = search(Landscape({}), more_samples=128)
    assert {step.setting.num_samples for step in steps} == {128}


def test_matmuls_go_to_fp32_by_their_gain_until_the_change_is_tolerable() -> None:
    steps = search(Landscape({"linear.2": 3.0, "linear.5": 4.0, "linear.7": 1.0}))
    fallen = [step for step in steps if step.setting.fp32_linears]
    assert [step.setting.fp32_linears for step in fallen] == [("linear.5",)]  # 8.375 moved; 4.375 is within 5
    assert fallen[0].gain == pytest.approx(4)
    assert fallen[0].fp32_share == pytest.approx(600 / 3600)
    assert chosen(steps) is fallen[0]


def test_at_most_a_quarter_of_the_matmuls_goes_to_fp32() -> None:
    steps = search(Landscape({name: 5.0 + i for i, name in enumerate(MACS)}))
    assert chosen(steps).setting.fp32_linears == ("linear.7", "linear.6")
    assert not chosen(steps).change.tolerable


def test_a_certain_loss_of_f1_is_not_tolerated() -> None:
    steps = search(Landscape({"linear.3": 0.5}, f1=(-0.6, -1.0, -0.2)))
    assert chosen(steps).setting.fp32_linears == ("linear.3",)  # no other one gains anything


@pytest.mark.parametrize(
    ("moved", "f1", "tolerable"),
    [
        (4.9, None, True),
        (5.1, None, False),
        (5.1, (0.3, 0.1, 0.5), False),
        (3.0, (-0.4, -0.9, 0.1), True),  # perhaps chance
        (3.0, (-0.2, -0.3, -0.1), True),  # small
        (3.0, (-0.4, -0.7, -0.1), False),
    ],
)
def test_what_is_tolerable(moved: float, f1: tuple[float, float, float] | None, tolerable: bool) -> None:
    assert change(moved, f1).tolerable is tolerable


@given(st.data())
def test_on_any_landscape_the_result_is_the_best_of_all_tried(data: st.DataObject) -> None:
    measured: dict[Int8Setting, float] = {}
    reported: list[Step] = []

    def trial(setting: Int8Setting, limit: int | None = None) -> Int8Change:
        moved = data.draw(st.floats(0, 20))
        if limit is None:
            assert setting not in measured  # nothing twice
            measured[setting] = moved
        return change(moved)

    steps = tune(trial, num_samples=16, more_samples=64, macs=MACS, report=reported.append)
    assert reported == steps
    assert [measured[step.setting] for step in steps] == [step.change.moved for step in steps]
    assert len(measured) == len(steps)
    assert chosen(steps).change.moved <= min(measured.values()) + LEAST_GAIN
