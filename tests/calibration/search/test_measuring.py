"""Measuring: which configurations are measured on which questions."""

from pathlib import Path

import pytest

from dynamic_tinybert.calibration.search.candidate_runs import Measurer
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.length_config import LengthConfig

FIRST, REST = range(100), range(100, 400)
MACS = 7.0


def wrong_every(step: int) -> list[float]:
    return [0.0 if step and i % step == 0 else 100.0 for i in range(400)]


class Recorded:
    """F1 of each question and latency by keep ratio, and the calls that asked for them."""

    def __init__(self, known: dict[float, tuple[list[float], float]]) -> None:
        self.known = {1.0: (wrong_every(0), 10.0)} | known
        self.calls: list[tuple[float, range]] = []

    def __call__(self, config: LengthConfig, questions: range) -> Trial:
        ratio = config.keep_ratios[0]
        self.calls.append((ratio, questions))
        f1, latency = self.known[ratio]
        # Questions get slower: the parts differ in their means.
        return Trial(config, tuple(f1[i] for i in questions), MACS, latency * (1 + (questions.start > 0)))


def measurer(measure: Recorded, path: Path) -> Measurer:
    return Measurer(measure, Journal(path / "journal", {}), num_layers=1, num_examples=400)


def test_hopeful_configuration_is_measured_on_all_questions(tmp_path: Path) -> None:
    measure = Recorded({0.5: (wrong_every(25), 6.0)})
    outcome = measurer(measure, tmp_path)(LengthConfig((0.5,)))
    assert measure.calls == [(1.0, FIRST), (1.0, REST), (0.5, FIRST), (0.5, REST)]
    assert not outcome.rejected
    assert outcome.trial.scores == tuple(wrong_every(25))
    assert outcome.trial.latency_ms == pytest.approx((100 * 6 + 300 * 12) / 400)
    assert outcome.loss == pytest.approx(4)
    assert outcome.loss_error == pytest.approx(100 * (0.04 * 0.96 / 400) ** 0.5)
    assert outcome.latency == pytest.approx(0.6)


def test_too_large_a_loss_is_rejected_on_the_first_quarter(tmp_path: Path) -> None:
    measure = Recorded({0.5: (wrong_every(5), 6.0)})
    outcome = measurer(measure, tmp_path)(LengthConfig((0.5,)))
    assert measure.calls[2:] == [(0.5, FIRST)]
    assert outcome.rejected
    assert outcome.loss == pytest.approx(20)
    assert outcome.latency == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("latency", "step", "rejected"),
    [
        (6.0, 20, True),  # as fast, and loses 5 more: beyond doubt on 100 questions
        (5.9, 20, False),  # faster
        (7.0, 50, False),  # loses 2 more, which may be chance
        (7.0, 20, True),
    ],
)
def test_surely_worse_than_one_no_slower_is_rejected(tmp_path: Path, latency: float, step: int, rejected: bool) -> None:
    measure = Recorded({0.5: (wrong_every(0), 6.0), 0.4: (wrong_every(step), latency)})
    measured = measurer(measure, tmp_path)
    assert not measured(LengthConfig((0.5,))).rejected
    assert measured(LengthConfig((0.4,))).rejected is rejected


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    known = {0.5: (wrong_every(25), 6.0), 0.4: (wrong_every(5), 5.0)}
    configs = [LengthConfig((0.5,)), LengthConfig((0.4,)), LengthConfig((0.5,), (0.1,))]
    first, again = Recorded(known), Recorded(known)
    with Journal(tmp_path / "journal", {}) as journal:
        measured = Measurer(first, journal, num_layers=1, num_examples=400)
        outcomes = [measured(config) for config in configs]
        assert [measured(config) for config in configs] == outcomes
    assert len(first.calls) == len(set(map(str, first.calls))) + 2  # the same ratio with a threshold is another one
    with Journal(tmp_path / "journal", {}) as journal:
        resumed = Measurer(again, journal, num_layers=1, num_examples=400)
        assert [resumed(config) for config in configs] == outcomes
        assert resumed.full == measured.full
    assert again.calls == []


def test_too_few_questions_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal, pytest.raises(InvalidInputError, match="num_examples"):
        Measurer(Recorded({}), journal, num_layers=1, num_examples=3)
