"""Checks of options that several parts take."""

from .errors import InvalidInputError


def require_int(name: str, value: object, least: int) -> None:
    """Raise InvalidInputError unless `value` is an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} must be an int of at least {least}, not {value!r}")
