"""Limit PyTorch's threads, because PyTorch respects CPU affinity but not cgroup quotas."""

from __future__ import annotations

import torch

from dynamic_tinybert.runtime.cpu_quota import usable_cpus


def stay_within_quota() -> None:
    """Reduce the number of PyTorch's threads in this process to the number of CPUs that the process may use."""
    cpus = usable_cpus()
    if torch.get_num_threads() > cpus:
        torch.set_num_threads(cpus)
