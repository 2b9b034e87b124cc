"""Lazy public names of packages: each is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from .errors import MissingExtraError


def lazy_attributes(package: str, homes: Mapping[str, str], extra: str | None = None) -> Callable[[str], object]:
    """A module ``__getattr__`` that imports a public name only when it is used.

    Args:
        package: Import name of the package.
        homes: For each public name, the submodule that defines it.
        extra: The extra of the package that the imports need; None if they need none.

    Returns:
        The function. With `extra`, it raises MissingExtraError, with the pip command to run, if a dependency is not
        installed.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            if extra is None:
                raise
            raise MissingExtraError(
                f"{package}.{name} needs {error.name}, which is not installed; "
                f"run: pip install 'dynamic-tinybert[{extra}]'"
            ) from error

    return get
