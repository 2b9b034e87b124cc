"""The interface of all systems: a call from NumPy arrays to NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Inputs = dict[str, npt.NDArray[np.int64]]
"""input_ids, attention_mask and token_type_ids, each [1, L]."""


class Outputs(NamedTuple):
    start: npt.NDArray[np.float32]  # [1, L]
    end: npt.NDArray[np.float32]
    kept_positions: Mapping[int, npt.NDArray[Any]] = {}  # by layer, of systems that drop tokens


Model = Callable[[Inputs], Outputs]
