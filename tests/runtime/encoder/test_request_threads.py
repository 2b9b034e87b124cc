"""Threads and requests where OpenVINO's CPU plugin does not decide about them."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from dynamic_tinybert.runtime.cpu_quota import default_threads, numa_nodes
from dynamic_tinybert.runtime.encoder.request_threads import request_threads
from dynamic_tinybert.runtime.loading import with_defaults

CPUS = 6


@pytest.fixture(autouse=True)
def cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CPUS)))


def machine(root: Path, nodes: Mapping[int, int], quota: str = "max 100000") -> Path:
    """A file system in which each CPU belongs to a NUMA node and is a core of its own."""
    for cpu, node in nodes.items():
        (root / f"sys/devices/system/cpu/cpu{cpu}/node{node}").mkdir(parents=True)
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir()
        (topology / "thread_siblings_list").write_text(f"{cpu}\n")
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/\n")
    (proc / "mountinfo").write_text("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(f"{quota}\n")
    return root


ONE_NODE = dict.fromkeys(range(CPUS), 0)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, (6, 1)),
        ({"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16", "CACHE_DIR": "/x"}, (6, 1)),
        ({"INFERENCE_NUM_THREADS": 4, "ENABLE_CPU_PINNING": False}, (4, 1)),
        ({"INFERENCE_NUM_THREADS": "4", "ENABLE_CPU_PINNING": "NO"}, (4, 1)),
        ({"INFERENCE_NUM_THREADS": 64}, (6, 1)),
        ({"INFERENCE_NUM_THREADS": 0, "NUM_STREAMS": 0}, (6, 1)),
        ({"NUM_STREAMS": 2}, (3, 2)),
        ({"NUM_STREAMS": "4"}, (1, 4)),
        ({"NUM_STREAMS": 9}, (1, 6)),
        ({"INFERENCE_NUM_THREADS": 4, "NUM_STREAMS": 2}, (2, 2)),
        ({"PERFORMANCE_HINT": "THROUGHPUT"}, (1, 6)),
        ({"PERFORMANCE_HINT": "throughput", "INFERENCE_NUM_THREADS": 4}, (1, 4)),
        ({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 2}, (3, 2)),
        ({"PERFORMANCE_HINT": "CUMULATIVE_THROUGHPUT"}, None),
        ({"NUM_STREAMS": "AUTO"}, None),
        ({"NUM_STREAMS": -1}, None),
        ({"INFERENCE_NUM_THREADS": "many"}, None),
        ({"INFERENCE_PRECISION_HINT": "f99"}, None),
        ({"ENABLE_CPU_PINNING": True}, None),
        ({"SCHEDULING_CORE_TYPE": "PCORE_ONLY"}, None),
        ({"NO_SUCH_PROPERTY": 1}, None),
    ],
)
def test_threads_and_requests(properties: dict[str, object], expected: tuple[int, int] | None, tmp_path: Path) -> None:
    assert request_threads(properties, machine(tmp_path, ONE_NODE)) == expected


def test_a_quota_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, ONE_NODE, "250000 100000")
    assert request_threads({}, root) == (default_threads(root), 1) == (3, 1)


@pytest.mark.parametrize(("last", "nodes"), [(0, 1), (1, 2)])
def test_openvino_places_threads_on_numa_nodes(last: int, nodes: int, tmp_path: Path) -> None:
    root = machine(tmp_path, ONE_NODE | {CPUS - 1: last, CPUS: 3})  # node 3 is not in the affinity
    assert numa_nodes(root) == nodes
    assert (request_threads({}, root) is None) == (nodes > 1)


def test_no_word_about_nodes_means_one(tmp_path: Path) -> None:
    assert numa_nodes(tmp_path) == 1


def test_the_defaults_of_a_model_are_carried_out() -> None:
    assert request_threads(with_defaults(None)) is not None or numa_nodes() > 1
