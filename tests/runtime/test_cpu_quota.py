"""File trees as Linux, Docker, Kubernetes and systemd show them."""

import os
from pathlib import Path

import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.cpu_quota import default_threads, quotas, thread_properties, usable_cpus

from support.tiny import tiny_bundle

HOST = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
"""
V2 = HOST + "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1 = HOST + (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {mounted} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)


def tree(root: Path, mounts: str, own: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def v1(folder: str, quota: int, period: int = 100000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


CASES = {
    "v2, a container": (V2, "0::/\n", {"cpu.max": "150000 100000"}, [1.5]),
    "v2, none": (V2, "0::/\n", {"cpu.max": "max 100000"}, []),
    "v2, a service, its slice and the root": (
        V2,
        "0::/system.slice/answers.service\n",
        {
            "system.slice/answers.service/cpu.max": "max 100000",
            "system.slice/cpu.max": "200000 100000",
            "cpu.stat": "usage_usec 1",
        },
        [2.0],
    ),
    "v2, the least of several counts": (
        V2,
        "0::/kubepods/pod1/abc\n",
        {"kubepods/pod1/abc/cpu.max": "400000 100000", "kubepods/pod1/cpu.max": "50000 100000"},
        [4.0, 0.5],
    ),
    "v2, out of its namespace": (V2, "0::/../other\n", {"cpu.max": "100000 100000"}, [1.0]),
    "v1, the host": (
        V1.format(mounted="/"),
        "4:memory:/a\n1:cpu,cpuacct:/a/b\n0::/\n",
        {**v1("cpu,cpuacct/a/b", -1), **v1("cpu,cpuacct/a", 75000, 50000), **v1("memory/a", 1)},
        [1.5],
    ),
    "v1, a container that sees its own cgroup as the root": (
        V1.format(mounted="/docker/abc"),
        "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n",
        v1("cpu,cpuacct", 100000),
        [1.0],
    ),
    "v1, none": (V1.format(mounted="/"), "1:cpu,cpuacct:/\n", v1("cpu,cpuacct", -1), []),
    "no cgroups": (HOST, "", {}, []),
    "damaged": (V2, "0::/\nnonsense\n:\n", {"cpu.max": "lots"}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_quotas_are_found_from_the_process_upwards(tmp_path: Path, case: str) -> None:
    mounts, own, files, expected = CASES[case]
    assert quotas(tree(tmp_path, mounts, own, files)) == expected


@pytest.mark.parametrize(
    ("quota", "affine", "threads"),
    [("150000", 8, 2), ("10000", 8, 1), ("800000", 4, 4), ("max", 4, 4), ("100000", 1, 1)],
)
def test_the_smaller_of_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, affine: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affine)))
    root = tree(tmp_path, V2, "0::/\n", {"cpu.max": f"{quota} 100000"})
    assert usable_cpus(root) == default_threads(root) == threads
    # nothing is set where OpenVINO takes no more by itself
    fewer = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    assert thread_properties(root=root) == (fewer if threads < affine else {})
    # fewer threads than CPUs would be pinned to the first, as those of any other process
    for number in (1, "1"):
        unpinned = {"ENABLE_CPU_PINNING": False} if affine > 1 else {}
        assert thread_properties({"INFERENCE_NUM_THREADS": number}, root) == unpinned
    assert thread_properties({"INFERENCE_NUM_THREADS": affine}, root) == {}


def test_a_quota_between_cores_and_hyper_threads_is_left_to_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    root = tree(tmp_path, V2, "0::/\n", {"cpu.max": "600000 100000"})
    for cpu in range(8):
        file = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert usable_cpus(root) == 6
    assert thread_properties(root=root) == {}  # it takes 4
    assert default_threads(root) == 4
    (root / "sys/fs/cgroup/cpu.max").write_text("300000 100000\n")
    assert thread_properties(root=root)["INFERENCE_NUM_THREADS"] == 3
    assert default_threads(root) == 3


def test_without_files_affinity_decides(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_a_models_threads_follow_the_quota_unless_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_tinybert.runtime.cpu_quota.usable_cpus", lambda root: 1)
    bundle = tiny_bundle(tmp_path / "bundle")

    def threads(**options: object) -> object:
        model = LengthAdaptiveModel.from_pretrained(bundle, **options)
        model([[1, 2, 3]])
        return model._ov_config["INFERENCE_NUM_THREADS"]

    assert threads() == default_threads() == 1
    assert threads(num_threads=2) == 2
    assert threads(ov_config={"INFERENCE_NUM_THREADS": 2}) == 2
