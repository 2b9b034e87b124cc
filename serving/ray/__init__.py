"""Beyond one machine: the batches of a Ray dataset, and a Ray Serve application.

The names below are imported on first use, so that the package can be imported where Ray is not installed.
"""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .batches import BatchAnswerer

__all__ = ["BatchAnswerer"]

__getattr__ = lazy_attributes(__name__, {"BatchAnswerer": "batches"}, extra="ray")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
