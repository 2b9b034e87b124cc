"""PyTorch's threads, which know of CPU affinity but not of quotas."""

from __future__ import annotations

import torch

from dynamic_tinybert.runtime.cpu_quota import usable_cpus


def stay_within_quota() -> None:
    """Let PyTorch use no more threads in this process than it may use CPUs; fewer stay as they are."""
    cpus = usable_cpus()
    if torch.get_num_threads() > cpus:
        torch.set_num_threads(cpus)
