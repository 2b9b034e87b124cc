"""How many threads a model has in an actor; the cluster tests check the count in real actors."""

import os

import pytest

from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.serving.ray import threads


@pytest.mark.parametrize(("cpus", "expected"), [(0, 1), (0.5, 1), (1, 1), (1.9, 1), (1000, default_threads())])
def test_threads_follow_the_cpus_of_the_actor(monkeypatch: pytest.MonkeyPatch, cpus: float, expected: int) -> None:
    monkeypatch.setattr(threads, "actor_cpus", lambda: cpus)
    assert threads.thread_options()["num_threads"] == expected


def test_threads_are_not_pinned_where_other_actors_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(threads, "actor_cpus", lambda: 8.0)
    assert threads.thread_options(4) == {"num_threads": 4, "ov_config": {"ENABLE_CPU_PINNING": False}}
    assert threads.thread_options(8) == {"num_threads": 8}


def test_outside_of_actors_the_runtime_decides() -> None:
    assert threads.actor_cpus() is None
    assert threads.thread_options() == {}
    assert threads.thread_options(2) == {"num_threads": 2}
