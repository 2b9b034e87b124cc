"""Checks of options that several modules share."""

import numpy as np

from .errors import InvalidInputError


def require_int(name: str, value: object, least: int) -> int:
    """`value` as an int; raise InvalidInputError unless it is an integer, NumPy's included, of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} must be an int of at least {least}, not {value!r}")
    return int(value)
