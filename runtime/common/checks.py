"""Checks of options that several modules share."""

import math

import numpy as np

from .errors import InvalidInputError


def require_int(name: str, value: object, least: int) -> int:
    """`value` as an int; raise InvalidInputError unless it is an integer, NumPy's included, of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} must be an int of at least {least}, not {value!r}")
    return int(value)


def require_number(name: str, value: object) -> float:
    """`value` as a float; raise InvalidInputError unless it is a finite number, NumPy's included."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise InvalidInputError(f"{name} must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an int of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be a finite number, not {value!r}")
    return number
