"""INT8 by Intel Neural Compressor, learnt significance, and the search for length configurations."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .calibrator import calibrate
    from .result import Calibration

__all__ = ["Calibration", "calibrate"]

__getattr__ = lazy_attributes(__name__, {"Calibration": "result", "calibrate": "calibrator"}, "calibrate,export")
