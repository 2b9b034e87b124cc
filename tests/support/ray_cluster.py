"""A real Ray cluster of several nodes on this machine, of which nothing stays."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray accepts is 75 MiB


@contextmanager
def ray_cluster(num_cpus: int) -> Iterator[Any]:
    """A cluster whose head has so many CPUs, and which this process is connected to; see `add_node`."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # sockets in it must have short paths
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        cluster = Cluster()
        try:
            add_node(cluster, num_cpus, include_dashboard=False)
            ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder)


def add_node(cluster: Any, num_cpus: int, **options: Any) -> Any:  # noqa: ANN401 - Ray's tools for tests have no types
    """Add a node, which Ray gives this machine's own address."""
    return cluster.add_node(num_cpus=num_cpus, object_store_memory=OBJECT_STORE_BYTES, **options)
