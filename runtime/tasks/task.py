"""What a task gives the runtime: its part of the graph, and the typed output of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.encoder.compiled import Arrays
from dynamic_tinybert.runtime.encoder.task_graph import TaskGraph

KeptPositions = Mapping[int, npt.NDArray[np.int32]]
"""For each layer that may drop tokens, the input positions of the tokens that it passed on, int32 [B, n], ascending;
rows with fewer than n tokens are filled up with L."""


class ModelOutput(Protocol):
    """The attributes that the output of every task has."""

    @property
    def kept_positions(self) -> KeptPositions:
        """Which tokens each layer passed on."""


class Task(TaskGraph, Protocol):
    """What the runtime must know about a task to run its models."""

    @property
    def name(self) -> str:
        """Its name in the manifest of a bundle."""

    def output(self, arrays: Arrays, length: int, kept: KeptPositions) -> Any:  # noqa: ANN401 - a type of the task's own
        """The typed output of a batch, a `ModelOutput`.

        Args:
            arrays: The graph's outputs by name, all finite. Per-token outputs may be padded beyond `length`.
            length: Number of tokens of the caller's input, before the runtime padded it.
            kept: Which tokens each layer passed on.
        """
