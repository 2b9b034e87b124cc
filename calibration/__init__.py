"""INT8 ranges by Intel Neural Compressor, and the learnt significance."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.lazy import lazy_attributes

if TYPE_CHECKING:
    from .int8 import QuantizedLinear, quantize_linears
    from .scorer import Scorer, load_scorers, save_scorers

__all__ = ["QuantizedLinear", "Scorer", "load_scorers", "quantize_linears", "save_scorers"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "QuantizedLinear": "int8",
        "Scorer": "scorer",
        "load_scorers": "scorer",
        "quantize_linears": "int8",
        "save_scorers": "scorer",
    },
    "export",
)
