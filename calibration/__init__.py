"""INT8 by Intel Neural Compressor, learnt significance, and the search for length configurations."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .calibrator import calibrate
    from .documents.calibrator import calibrate_documents
    from .result import Calibration

__all__ = ["Calibration", "calibrate", "calibrate_documents"]

__getattr__ = lazy_attributes(
    __name__,
    {"Calibration": "result", "calibrate": "calibrator", "calibrate_documents": "documents.calibrator"},
    "calibrate,export",
)
