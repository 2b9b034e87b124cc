"""Which configurations are measured further."""

import numpy as np
import pytest

from dynamic_tinybert.calibration.search.candidate_runs import Outcome
from dynamic_tinybert.calibration.search.contenders import contenders, loss_to_aim_at
from dynamic_tinybert.calibration.search.losses import ONE_SIDED, Loss
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.length_config import LengthConfig


def outcome(
    loss: float, latency: float, *, measured: float = 0.25, error: float = 0.4, rejected: bool = False
) -> Outcome:
    trial = Trial(LengthConfig((latency,)), (100.0 - loss,), macs=latency, latency_ms=latency)
    return Outcome(trial, 1, measured, rejected, Loss(loss, error), latency, latency)


def chosen(outcomes: list[Outcome], *limits: float) -> list[float]:
    """Latencies of the contenders, with losses expected as measured."""
    return [o.latency for o in contenders(outcomes, np.array([o.loss.mean for o in outcomes]), limits)]


def test_each_limit_has_the_one_that_may_gain_most() -> None:
    some = [outcome(4, 0.2), outcome(1.6, 0.4), outcome(0.2, 0.6), outcome(0.1, 0.9)]
    assert chosen(some, 0.5, 2.5) == [0.6, 0.4]
    assert chosen(some, 0.5, 0.5) == [0.6, 0.9]  # none is chosen twice
    assert chosen(some, 9.0) == [0.2]


def test_only_faster_ones_than_the_fastest_that_is_known_to_be_within() -> None:
    known = outcome(0.5, 0.5, measured=1, error=0.1)
    assert chosen([known, outcome(0.5, 0.55), outcome(0.4, 0.9)], 1.0) == []
    assert chosen([known, outcome(0.5, 0.55), outcome(0.4, 0.45)], 1.0) == [0.45]
    beyond = outcome(0.95, 0.5, measured=1, error=0.1)  # at the upper bound
    assert chosen([beyond, outcome(0.5, 0.55), outcome(0.4, 0.9)], 1.0) == [0.55]


def test_what_cannot_be_within_or_is_done_is_left() -> None:
    assert chosen([outcome(5, 0.2)], 1.0) == []
    assert chosen([outcome(0, 0.2, rejected=True), outcome(0, 0.2, measured=1)], 1.0) == []
    assert contenders([], np.array([]), [1.0]) == []


def test_the_expected_loss_counts() -> None:
    """One that did well by chance is drawn towards its neighbours before it is measured further."""
    lucky, sound = outcome(0.2, 0.4), outcome(0.5, 0.45)
    assert contenders([lucky, sound], np.array([3.0, 0.5]), [1.0]) == [sound]


def test_the_loss_to_aim_at_leaves_room_for_the_bound() -> None:
    some = [outcome(loss, 0.5, measured=1, error=0.1 * loss) for loss in (1.0, 1.1, 1.2, 1.3, 1.4, 8.0, 9.0)]
    assert loss_to_aim_at(1.5, some) == pytest.approx(1.5 - ONE_SIDED * 0.12)
    quarter = [outcome(1.2, 0.5, measured=0.25, error=0.4)]
    assert loss_to_aim_at(1.5, quarter) == pytest.approx(1.5 - ONE_SIDED * 0.2)
    assert loss_to_aim_at(1.5, [outcome(1, 0.5, rejected=True)]) == 0.75
