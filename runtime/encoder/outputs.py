"""Checks of what a graph has computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynamic_tinybert.runtime.common.errors import InferenceError

from .compiled import Arrays


def check_finite(outputs: Arrays, names: Sequence[str], length: int) -> None:
    """Raise InferenceError if a number of these outputs is NaN or infinite; per-token outputs are [B, length, ...]."""
    for name in names:
        values = outputs[name]
        if not np.isfinite(values).all():
            row, *rest = index = tuple(np.argwhere(~np.isfinite(values))[0].tolist())
            where = f"token {rest[0]} in row {row}" if values.shape[1:2] == (length,) else f"row {row}"
            raise InferenceError(
                f"{name} of {where} is {values[index]}: the weights of the bundle are not finite, or so large that "
                "results overflow; export the checkpoint again, or use another one"
            )
