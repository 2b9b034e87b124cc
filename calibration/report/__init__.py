"""HTML reports: cost and accuracy of length configurations."""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .calibrations import write_calibration_report
    from .contents import Latency, NamedResult, Peer, Point, Report, Spread
    from .evaluations import evaluation_report, write_evaluation_report
    from .page import write_report

__all__ = [
    "Latency",
    "NamedResult",
    "Peer",
    "Point",
    "Report",
    "Spread",
    "evaluation_report",
    "write_calibration_report",
    "write_evaluation_report",
    "write_report",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        **dict.fromkeys(("Latency", "NamedResult", "Peer", "Point", "Report", "Spread"), "contents"),
        **dict.fromkeys(("evaluation_report", "write_evaluation_report"), "evaluations"),
        "write_calibration_report": "calibrations",
        "write_report": "page",
    },
    "calibrate",
)
