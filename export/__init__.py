"""Export of PyTorch checkpoints to bundles."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .exporter import export_model

__all__ = ["export_model"]

__getattr__ = lazy_attributes(__name__, {"export_model": "exporter"}, "export")
