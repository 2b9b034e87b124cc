"""Export of PyTorch question-answering checkpoints to bundles, and the reference model in PyTorch."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.lazy import lazy_attributes

if TYPE_CHECKING:
    from .exporter import export_model
    from .reference import ReferenceModel

__all__ = ["ReferenceModel", "export_model"]

__getattr__ = lazy_attributes(__name__, {"export_model": "exporter", "ReferenceModel": "reference"}, "export")
