"""Answer questions inside services: asynchronously, from a bounded queue, with deadlines.

The names below are imported on first use, so that light modules do not load OpenVINO.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answerer import AsyncQuestionAnswerer

__all__ = ["AsyncQuestionAnswerer"]

_HOMES = {"AsyncQuestionAnswerer": "answerer"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
