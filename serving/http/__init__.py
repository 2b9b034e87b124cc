"""The HTTP server. It needs the extra `serving`, so its names are imported on first use."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .app import make_app
    from .server import run_server

__all__ = ["make_app", "run_server"]

__getattr__ = lazy_attributes(__name__, {"make_app": "app", "run_server": "server"}, extra="serving")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
