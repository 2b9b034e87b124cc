"""INT8 ranges by Intel Neural Compressor, learnt significance, and the search for length configurations."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.lazy import lazy_attributes

if TYPE_CHECKING:
    from .calibrator import Calibration, calibrate
    from .int8 import QuantizedLinear, quantize_linears
    from .scorer import Scorer, load_scorers, save_scorers

__all__ = [
    "Calibration",
    "QuantizedLinear",
    "Scorer",
    "calibrate",
    "load_scorers",
    "quantize_linears",
    "save_scorers",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Calibration": "calibrator",
        "calibrate": "calibrator",
        "QuantizedLinear": "int8",
        "Scorer": "scorer",
        "load_scorers": "scorer",
        "quantize_linears": "int8",
        "save_scorers": "scorer",
    },
    "calibrate,export",
)
