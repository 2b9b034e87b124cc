"""Length-adaptive BERT encoders on Intel CPUs: layers drop the tokens that no longer matter.

The names below are imported when they are first used; none of them needs PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, QuestionAnswerer

    __version__: str

__all__ = ["LengthAdaptiveModel", "LengthConfig", "QuestionAnswerer", "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("dynamic-tinybert")
    if name in __all__:
        return getattr(import_module("dynamic_tinybert.runtime"), name)
    raise AttributeError(f"module 'dynamic_tinybert' has no attribute {name!r}")
