"""How many CPUs this process may use: limited by its CPU affinity and by the CPU time quota of its cgroup."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath


def usable_cpus(root: Path = Path("/")) -> int:
    """The number of CPUs in the process's affinity, or the quota of its cgroups, rounded up, if that is lower.

    Args:
        root: Folder that contains /proc and the mounted cgroups.

    Returns:
        At least 1.
    """
    affine = len(os.sched_getaffinity(0))
    return max(1, min([affine, *map(math.ceil, quotas(root))]))


def default_threads(root: Path = Path("/")) -> int:
    """Default number of threads of a graph: the smaller of `usable_cpus` and the physical cores in the affinity.

    Args:
        root: Folder that contains /proc, /sys and the mounted cgroups.
    """
    return min(usable_cpus(root), _affine_cores(root))


def thread_properties(given: Mapping[str, object] | None = None, root: Path = Path("/")) -> dict[str, object]:
    """OpenVINO properties that keep a graph within the quota, and off CPUs that other processes need.

    Nothing is set if OpenVINO stays within the quota by itself: by default it uses the CPUs in the affinity, with one
    thread per physical core; an explicit number of threads may use hyper-threads. If there are fewer threads than
    cores, they are not pinned, because OpenVINO would pin the threads of all processes to the same first CPUs.

    Args:
        given: Properties from the caller, whose INFERENCE_NUM_THREADS takes precedence.
        root: Folder that contains /proc, /sys and the mounted cgroups.
    """
    properties: dict[str, object] = {}
    threads = (given or {}).get("INFERENCE_NUM_THREADS")
    if threads is None:
        threads = default_threads(root)
        if threads == _affine_cores(root):
            return {}
        properties["INFERENCE_NUM_THREADS"] = threads
    if str(threads).isdecimal() and int(str(threads)) < _affine_cores(root):
        properties["ENABLE_CPU_PINNING"] = False
    return properties


def numa_nodes(root: Path = Path("/")) -> int:
    """The number of NUMA nodes that the CPUs in the process's affinity belong to; 1 if Linux does not say."""
    topology = root / "sys/devices/system/cpu"
    return max(1, len({node.name for cpu in os.sched_getaffinity(0) for node in topology.glob(f"cpu{cpu}/node*")}))


def quotas(root: Path = Path("/")) -> list[float]:
    """The quotas that apply to this process, in CPUs: those of its cgroup and its ancestors, version 1 and 2."""
    return [quota for folder in _folders(root) for quota in (_version_1(folder), _version_2(folder)) if quota]


def _affine_cores(root: Path) -> int:
    topology = root / "sys/devices/system/cpu"
    files = {cpu: topology / f"cpu{cpu}/topology/thread_siblings_list" for cpu in os.sched_getaffinity(0)}
    return len({_text(file) or str(cpu) for cpu, file in files.items()})


def _version_2(folder: Path) -> float | None:
    return _share(_text(folder / "cpu.max").split())  # "max 100000" or "50000 100000"


def _version_1(folder: Path) -> float | None:
    return _share([_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")])  # -1 means no quota


def _share(numbers: list[str]) -> float | None:
    try:
        quota, period = map(int, numbers)
    except ValueError:  # the file says "max" or does not exist
        return None
    return quota / period if quota > 0 and period > 0 else None


def _folders(root: Path) -> Iterator[Path]:
    """Folders of the process's cgroups that control CPU time, each followed by its ancestors up to the mount."""
    mounts = list(_mounts(root))
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        for mounted, place, available in mounts:
            # The line of version 2 lists no controllers, and neither do the options of its mount.
            if ("cpu" in controllers.split(",") and "cpu" in available) or (
                not controllers and available == ["cgroup2"]
            ):
                # A container sees its own cgroup as the mount's root, whatever the line calls it.
                is_below = PurePosixPath(own).is_relative_to(mounted) and ".." not in own
                below = PurePosixPath(own).relative_to(mounted) if is_below else PurePosixPath()
                folder = root / place.lstrip("/") / below
                yield folder
                yield from (folder.parents[level] for level in range(len(below.parts)))


def _mounts(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """For each cgroup mount: the cgroup at its root, the mount point, and its controllers or ["cgroup2"]."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, file_system = left.split(), right.split()
        if len(fields) < 5 or len(file_system) < 3:
            continue
        if file_system[0] == "cgroup2":
            yield fields[3], fields[4], ["cgroup2"]
        elif file_system[0] == "cgroup":
            yield fields[3], fields[4], file_system[2].split(",")


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
