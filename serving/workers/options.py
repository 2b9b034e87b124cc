"""What a worker loads, and how long the front process waits for workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.cpu_quota import default_threads


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model of a worker.

    Attributes:
        bundle: Folder or Hub id of the bundle; None for the one embedded in the package.
        name: What clients call the model.
        warm_up: Whether the latency table is there, and graphs are compiled, before the worker takes jobs. Otherwise
            the first jobs that need them wait for that.
        arguments: Further arguments of `LengthAdaptiveModel.from_pretrained` by name.
    """

    bundle: str | Path | None = None
    name: str = "dynamic-tinybert"
    warm_up: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which the front process gives something up.

    Attributes:
        start_s: Until a worker has loaded its model.
        beat_s: Between two questions whether a worker is alive.
        silence_s: Without a sign of a worker's event loop, after which the worker counts as hung.
        turn_s: Without any of a worker's threads coming to the end of a batch, or without the result of a job that was
            lost with another worker, likewise.
        drain_s: Until the accepted jobs are done when the pool is closed.
        exit_s: Until a worker has ended that was asked to.
    """

    start_s: float = 120.0
    beat_s: float = 1.0
    silence_s: float = 10.0
    turn_s: float = 60.0
    drain_s: float = 30.0
    exit_s: float = 3.0


def threads_arguments(workers: int, threads: int | None = None) -> dict[str, Any]:
    """Arguments of `LengthAdaptiveModel.from_pretrained` that divide CPU threads among workers.

    With several workers, threads are not pinned: each process would pin its own to the same first CPUs.

    Args:
        workers: Number of workers.
        threads: Threads of all workers together; None for as many as the process may use.
    """
    if workers == 1:
        return {} if threads is None else {"num_threads": threads}
    share = max(1, (default_threads() if threads is None else threads) // workers)
    return {"num_threads": share, "ov_config": {"ENABLE_CPU_PINNING": False}}
