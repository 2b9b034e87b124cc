"""Answer, classify and rank inside services: asynchronously, from a bounded queue, with deadlines.

The names below are imported on first use, so that light modules do not load OpenVINO.
"""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .answerer import AsyncQuestionAnswerer
    from .classifier import AsyncTextClassifier
    from .reranker import AsyncReranker

__all__ = ["AsyncQuestionAnswerer", "AsyncReranker", "AsyncTextClassifier"]

__getattr__ = lazy_attributes(
    __name__,
    {"AsyncQuestionAnswerer": "answerer", "AsyncReranker": "reranker", "AsyncTextClassifier": "classifier"},
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
