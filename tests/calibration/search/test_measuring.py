"""Measuring: which configurations are measured on which questions, step by step."""

from pathlib import Path

import pytest

from dynamic_tinybert.calibration.search.candidate_runs import Measurer, Outcome
from dynamic_tinybert.calibration.search.losses import ONE_SIDED
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.length_config import LengthConfig

PARTS = range(100), range(100, 200), range(200, 400)  # an eighth would be too few questions to begin with
GROUPS = [f"article {i % 10}" for i in range(400)]
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
        return Trial(config, tuple(f1[i] for i in questions), MACS * ratio, latency * (1 + (questions.start > 0)))


def measurer(measure: Recorded, path: Path, groups: list[str] = GROUPS) -> Measurer:
    return Measurer(measure, Journal(path / "journal", {}), num_layers=1, groups=groups)


def finished(measured: Measurer, config: LengthConfig) -> Outcome:
    """The outcome after all steps."""
    for _ in range(measured.steps):
        outcome = measured(config)
    return outcome


def test_each_call_is_a_step_further(tmp_path: Path) -> None:
    measure = Recorded({0.5: (wrong_every(25), 6.0)})
    measured, config = measurer(measure, tmp_path), LengthConfig((0.5,))
    assert measured.steps == 3
    assert measure.calls == [(1.0, part) for part in PARTS]
    assert measured.full.scores == tuple(wrong_every(0))
    for steps, part in enumerate(PARTS, 1):
        outcome = measured(config)
        assert measure.calls[2 + steps :] == [(0.5, part)]
        assert (outcome.steps, outcome.measured, outcome.rejected) == (steps, part.stop / 400, False)
        assert outcome.finished is (steps == 3)
        assert outcome.trial.scores == tuple(wrong_every(25)[: part.stop])
        assert outcome.loss.mean == pytest.approx(4)
        assert outcome.loss.error == pytest.approx(100 * (0.04 * 0.96 / part.stop) ** 0.5)
        assert outcome.loss.group_error > outcome.loss.error  # all that are wrong are of two articles
        assert outcome.margin == pytest.approx(ONE_SIDED * outcome.loss.group_error * (part.stop / 400) ** 0.5)
        assert outcome.latency == pytest.approx(0.6)
        assert outcome.macs == pytest.approx(0.5)
    assert outcome.trial.latency_ms == pytest.approx((100 * 6 + 300 * 12) / 400)
    assert measured(config) is outcome
    assert len(measure.calls) == 6


def test_a_configuration_that_keeps_everything_takes_its_steps_too(tmp_path: Path) -> None:
    measure = Recorded({})
    measured = measurer(measure, tmp_path)
    for part in PARTS:
        outcome = measured(LengthConfig((1.0,)))
        assert len(outcome.trial.scores) == part.stop
        assert (outcome.loss.mean, outcome.latency, outcome.rejected) == (0, 1, False)
    assert len(measure.calls) == 3


def test_many_questions_begin_with_an_eighth_and_few_with_all(tmp_path: Path) -> None:
    def run(config: LengthConfig, questions: range) -> Trial:
        calls.append(questions)
        return Trial(config, (100.0,) * len(questions), MACS, 1.0)

    for count, ends in (
        (5696, [712, 1424, 2848, 5696]),
        (799, [199, 399, 799]),
        (250, [125, 250]),
        (125, [125]),
        (4, [4]),
    ):
        calls: list[range] = []
        with Journal(tmp_path / f"journal-{count}", {}) as journal:
            Measurer(run, journal, num_layers=1, groups=["one"] * count)
        assert calls == [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def test_too_large_a_loss_is_rejected_on_the_first_part(tmp_path: Path) -> None:
    measure = Recorded({0.5: (wrong_every(5), 6.0)})
    measured, config = measurer(measure, tmp_path), LengthConfig((0.5,))
    outcome = measured(config)
    assert measure.calls[3:] == [(0.5, PARTS[0])]
    assert outcome.rejected
    assert not outcome.finished
    assert outcome.loss.mean == pytest.approx(20)
    assert outcome.latency == pytest.approx(0.6)
    assert measured(config) is outcome
    assert len(measure.calls) == 4


@pytest.mark.parametrize(
    ("latency", "step", "rejected"),
    [
        (6.0, 20, 1),  # as fast, and loses 5 more: beyond doubt on 100 questions
        (5.9, 20, None),  # faster
        (7.0, 50, 2),  # loses 2 more, which on 100 questions may be chance
        (7.0, 200, None),  # may be chance on all
        (7.0, 20, 1),
    ],
)
def test_surely_worse_than_one_no_slower_is_rejected(
    tmp_path: Path, latency: float, step: int, rejected: int | None
) -> None:
    measure = Recorded({0.5: (wrong_every(0), 6.0), 0.4: (wrong_every(step), latency)})
    measured = measurer(measure, tmp_path)
    assert finished(measured, LengthConfig((0.5,))).finished
    outcome = finished(measured, LengthConfig((0.4,)))
    assert outcome.rejected is (rejected is not None)
    assert outcome.steps == (rejected or 3)


def test_it_is_compared_only_with_those_that_were_measured_as_far(tmp_path: Path) -> None:
    measure = Recorded({0.5: (wrong_every(0), 6.0), 0.4: (wrong_every(50), 7.0)})
    measured = measurer(measure, tmp_path)
    measured(LengthConfig((0.5,)))
    assert finished(measured, LengthConfig((0.4,))).finished


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    known = {0.5: (wrong_every(25), 6.0), 0.4: (wrong_every(5), 5.0)}
    configs = [LengthConfig((0.5,)), LengthConfig((0.4,)), LengthConfig((0.5,), (0.1,)), LengthConfig((0.5,))]
    first, again = Recorded(known), Recorded(known)
    with Journal(tmp_path / "journal", {}) as journal:
        measured = Measurer(first, journal, num_layers=1, groups=GROUPS)
        outcomes = [measured(config) for config in configs]
    assert [outcome.steps for outcome in outcomes] == [1, 1, 1, 2]
    assert len(first.calls) == len(set(map(str, first.calls))) + 1  # the same ratio with a threshold is another one
    with Journal(tmp_path / "journal", {}) as journal:
        resumed = Measurer(again, journal, num_layers=1, groups=GROUPS)
        assert [resumed(config) for config in configs] == outcomes
        assert resumed.full == measured.full
    assert again.calls == []


def test_too_few_questions_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal, pytest.raises(InvalidInputError, match="the number of examples"):
        Measurer(Recorded({}), journal, num_layers=1, groups=GROUPS[:3])
