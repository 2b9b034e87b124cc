"""INT8 by Intel Neural Compressor, learnt significance, and the search for length configurations."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .calibrator import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]

__getattr__ = lazy_attributes(__name__, dict.fromkeys(("Calibration", "calibrate"), "calibrator"), "calibrate,export")
