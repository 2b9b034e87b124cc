"""Length-adaptive BERT encoders on Intel CPUs: layers drop the tokens that no longer matter.

The names below are imported on first use. None of them needs PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, QuestionAnswerer, Reranker, TextClassifier
    from dynamic_tinybert.serving import AsyncQuestionAnswerer, AsyncReranker, AsyncTextClassifier

    __version__: str

__all__ = [
    "AsyncQuestionAnswerer",
    "AsyncReranker",
    "AsyncTextClassifier",
    "LengthAdaptiveModel",
    "LengthConfig",
    "QuestionAnswerer",
    "Reranker",
    "TextClassifier",
    "__version__",
]

_HOMES = dict.fromkeys(("AsyncQuestionAnswerer", "AsyncReranker", "AsyncTextClassifier"), "serving")
"""Folders of the names that are not in `runtime`."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("dynamic-tinybert")
    if name in __all__:
        return getattr(import_module(f"dynamic_tinybert.{_HOMES.get(name, 'runtime')}"), name)
    raise AttributeError(f"module 'dynamic_tinybert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
