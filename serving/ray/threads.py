"""How many CPU threads a model uses inside a Ray actor: as many as the actor has CPUs."""

from __future__ import annotations

import os
import sys
from typing import Any

from dynamic_tinybert.runtime.cpu_quota import default_threads


def thread_options(num_threads: int | None = None) -> dict[str, Any]:
    """Arguments of `LengthAdaptiveModel.from_pretrained` that keep a model to its actor's share of the node.

    Ray only books the CPUs of an actor (`num_cpus`); it sets neither an affinity nor a quota, by which the runtime
    would see them. Threads are not pinned where the node has further CPUs, since the actors beside this one would pin
    theirs to the same ones.

    Args:
        num_threads: Number of threads; None for as many as the actor has CPUs, rounded down, but at least 1 and at most
            one for each core. Outside of actors None leaves the number to the runtime.
    """
    cpus = actor_cpus()
    if num_threads is None and cpus is not None:
        num_threads = max(1, min(int(cpus), default_threads()))
    if num_threads is None:
        return {}
    if cpus is not None and num_threads < len(os.sched_getaffinity(0)):
        return {"num_threads": num_threads, "ov_config": {"ENABLE_CPU_PINNING": False}}
    return {"num_threads": num_threads}


def actor_cpus() -> float | None:
    """The CPUs that Ray booked for the actor that this process is; None if it is none."""
    ray = sys.modules.get("ray")  # it is loaded in every actor
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE or context.get_actor_id() is None:
        return None
    return float(context.get_assigned_resources().get("CPU", 0))
