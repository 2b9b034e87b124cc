"""Beyond one machine: the batches of a Ray dataset, and a Ray Serve application.

The names below are imported on first use, so that the package can be imported where Ray is not installed.
"""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .application import build_app
    from .batches import BatchAnswerer
    from .settings import RaySettings

__all__ = ["BatchAnswerer", "RaySettings", "build_app"]

_HOMES = {"BatchAnswerer": "batches", "RaySettings": "settings", "build_app": "application"}

__getattr__ = lazy_attributes(__name__, _HOMES, extra="ray")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
