"""When the model will be free again, with several turns at once."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dynamic_tinybert.serving import runner as runners
from dynamic_tinybert.serving.runner import Runner


class Model:
    def is_compiled(self, config: object) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still."""
    clock = [1000.0]
    monkeypatch.setattr(runners, "monotonic", lambda: clock[0])
    return clock


def during(runner: Runner, predicted_ms: float, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Call a function while a turn is run."""

    def run_batch(*arguments: object, **options: object) -> list[Any]:
        then()
        return []

    monkeypatch.setattr(runners, "run_batch", run_batch)
    runner.run([], ["full"], predicted_ms, learn=False)


def runner_of(at_once: int) -> Runner:
    runner = Runner(SimpleNamespace(model=Model()), at_once)
    for _ in range(200):
        runner.slowness.learn(10, 10)
    return runner


def test_one_turn_at_a_time_is_waited_for(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    runner, seen = runner_of(1), list[float]()

    def look() -> None:
        seen.append(runner.running_ms())
        now[0] += 0.03
        seen.append(runner.running_ms())
        now[0] += 0.3  # later than predicted
        seen.append(runner.running_ms())

    during(runner, 200, monkeypatch, look)
    assert [*seen, runner.running_ms()] == pytest.approx([200, 170, 0, 0])


@pytest.mark.parametrize("order", [(200, 5), (5, 200)])
def test_of_several_turns_the_first_that_ends_is_waited_for(
    now: list[float], monkeypatch: pytest.MonkeyPatch, order: tuple[float, float]
) -> None:
    runner, seen = runner_of(2), list[float]()
    first, second = order

    def inner() -> None:
        seen.append(runner.running_ms())

    def outer() -> None:
        seen.append(runner.running_ms())  # another can begin at once
        during(runner, second, monkeypatch, inner)
        seen.append(runner.running_ms())

    during(runner, first, monkeypatch, outer)
    assert [*seen, runner.running_ms()] == pytest.approx([0, 5, 0, 0])


def test_a_turn_that_fails_is_over(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(1)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        during(runner, 200, monkeypatch, fail)
    assert runner.running_ms() == 0


def test_turns_that_a_forked_process_left_behind_hide_none(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    runner, seen = runner_of(1), list[float]()
    runner._ends[object()] = now[0] - 1  # of the parent, and will never be taken away
    during(runner, 200, monkeypatch, lambda: seen.append(runner.running_ms()))
    assert [*seen, runner.running_ms()] == pytest.approx([200, 0])
