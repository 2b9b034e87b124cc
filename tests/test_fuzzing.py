"""Whatever a bundle's author or a caller sends: an answer or an error of our tree, no crash, no hang, no 2 GB."""

from pathlib import Path

import pytest

from fuzzing.answering import mutate_and_ask, request
from fuzzing.children import run_all
from fuzzing.mutations import mutate
from fuzzing.samples import TOLERANCES


def check_mutations(samples: dict[str, Path], count: int, tmp_path: Path) -> None:
    names = list(samples)
    calls = [(str(samples[names[seed % len(names)]]), seed) for seed in range(count)]
    for (bundle, seed), outcome in zip(calls, run_all(mutate_and_ask, calls), strict=True):
        assert outcome.is_right, f"{bundle}, seed {seed}, {mutate(Path(bundle), tmp_path / 'wrong', seed)}: {outcome}"


def check_requests(samples: dict[str, Path], count: int) -> None:
    names = list(samples)
    calls = [(str(samples[name := names[seed % len(names)]]), seed, TOLERANCES[name]) for seed in range(count)]
    outcomes = list(run_all(request, calls))
    for (bundle, seed, _), outcome in zip(calls, outcomes, strict=True):
        assert outcome.is_right, f"{bundle}, seed {seed}: {outcome}"
    assert {outcome.kind for outcome in outcomes} == {"done", "error"}


def test_damaged_bundles_are_refused_or_answer(samples: dict[str, Path], tmp_path: Path) -> None:
    check_mutations(samples, 24, tmp_path)


def test_random_requests_are_refused_or_give_each_row_what_it_gets_alone(samples: dict[str, Path]) -> None:
    check_requests(samples, 60)


@pytest.mark.slow
def test_many_damaged_bundles(samples: dict[str, Path], tmp_path: Path) -> None:
    check_mutations(samples, 300, tmp_path)


@pytest.mark.slow
def test_many_random_requests(samples: dict[str, Path]) -> None:
    check_requests(samples, 1000)


def crash(how: str) -> str:
    import ctypes
    import os
    import time

    if how == "crash":
        ctypes.string_at(0)
    elif how == "hang":
        time.sleep(60)
    elif how == "exit":
        os._exit(0)
    elif how == "memory":
        return str(len(b"\1" * (900 * 2**20)))
    raise ValueError(how)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind"),
    [("crash", "crash"), ("exit", "crash"), ("hang", "hang"), ("memory", "memory"), ("raise", "foreign")],
)
def test_the_pool_tells_what_a_job_does(how: str, kind: str) -> None:
    found = list(run_all(crash, [(how,), ("raise",)], children=1, seconds=3.0, most_mib=700.0))
    assert [outcome.kind for outcome in found] == [kind, "foreign"]
