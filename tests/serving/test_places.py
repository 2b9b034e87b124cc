"""Requests that were to share a turn, and the places that they keep if there is none."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from dynamic_tinybert.runtime.common.errors import DeadlineExceededError
from dynamic_tinybert.serving.requests import Work
from dynamic_tinybert.serving.scheduler import Scheduler


class Noted:
    """Work of some parts, whose turns are noted."""

    def __init__(self, name: str, order: list[str], parts: int = 1) -> None:
        self.name, self._order, self._parts = name, order, parts
        self.takes: Callable[[Sequence[Any]], Sequence[int]] = lambda waiting: ()

    def prepare(self) -> None:
        pass

    def check(self, ahead: Sequence[Work[Any]], deadline: float) -> None:
        pass

    @property
    def done(self) -> bool:
        return not self._parts

    def companions(self, waiting: Sequence[Work[Any]]) -> Sequence[int]:
        return self.takes(waiting)

    def run(self, companions: Sequence[Work[Any]]) -> None:
        self._parts -= 1
        self._order.append(self.name)

    def result(self) -> str:
        return self.name


class Blocking(Noted):
    """Holds the only turn until it is let go."""

    def __init__(self, order: list[str]) -> None:
        super().__init__("first", order)
        self.began, self.let = threading.Event(), threading.Event()

    def run(self, companions: Sequence[Work[Any]]) -> None:
        self.began.set()
        assert self.let.wait(60)
        super().run(companions)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("ends", ["cancelled", "expired"])
@pytest.mark.parametrize("parts", [1, 2])
def test_companions_of_a_request_that_ends_before_its_turn_keep_their_places(ends: str, parts: int) -> None:
    order: list[str] = []
    scheduler = Scheduler(workers=2, max_queued=50)
    first, leader = Blocking(order), Noted("leader", order)
    futures: dict[str, Future[str]] = {"first": scheduler.submit(first)}
    deadline = time.monotonic() + 2

    def takes(waiting: Sequence[Any]) -> Sequence[int]:
        if ends == "cancelled":
            futures["leader"].cancel()
        else:
            until(lambda: time.monotonic() > deadline)
        assert [work.name for work in waiting] == list("abcdef")
        return [0, 2, 3]

    leader.takes = takes
    assert first.began.wait(60)
    futures["leader"] = scheduler.submit(leader, *([deadline] if ends == "expired" else []))
    for name in "abcdef":
        futures[name] = scheduler.submit(Noted(name, order, parts if name in "ac" else 1))
    until(lambda: all(request.prepared for request in list(scheduler._waiting)))
    first.let.set()
    assert [futures[name].result(60) for name in "abcdef"] == list("abcdef")
    assert order == ["first", *"abcdef", *("ac" if parts == 2 else "")]
    if ends == "expired":
        with pytest.raises(DeadlineExceededError):
            futures["leader"].result(60)
    until(lambda: (scheduler.queued, scheduler.running) == (0, 0))
    scheduler.close(drain=True)
    scheduler.join()
