"""How many threads a request has, and how many requests run at once, where OpenVINO's CPU plugin does not decide it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dynamic_tinybert.runtime.cpu_quota import default_threads, numa_nodes

_IGNORED = {"CACHE_DIR"}  # nothing is compiled
_ALLOWED = {
    "INFERENCE_PRECISION_HINT": {"F32", "BF16", "F16"},  # nothing is left that it would change
    "PERFORMANCE_HINT": {"LATENCY", "THROUGHPUT"},
    "ENABLE_CPU_PINNING": {"FALSE", "NO"},
}


def request_threads(properties: Mapping[str, object], root: Path = Path("/")) -> tuple[int, int] | None:
    """Threads of each request, and requests that run at once; None if OpenVINO has to carry the properties out.

    That is so if a property asks for more than numbers of threads and requests, such as placement on cores, and if this
    process may run on several NUMA nodes. By default one request has all threads; with the hint for throughput, each
    thread has a request of its own.

    Args:
        properties: OpenVINO properties by name.
        root: Folder that contains /proc, /sys and the mounted cgroups.
    """
    values = {name: str(value).upper() for name, value in properties.items() if name not in _IGNORED}
    numbers = {name: values.pop(name, "0") for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")}
    if any(value not in _ALLOWED.get(name, ()) for name, value in values.items()) or numa_nodes(root) > 1:
        return None
    if not all(number.isdecimal() for number in numbers.values()):
        return None
    threads = min(int(numbers["INFERENCE_NUM_THREADS"]) or default_threads(root), len(os.sched_getaffinity(0)))
    most = threads if values.get("PERFORMANCE_HINT") == "THROUGHPUT" else 1
    requests = min(int(numbers["NUM_STREAMS"]) or most, threads)
    return threads // requests, requests
