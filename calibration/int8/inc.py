"""Intel Neural Compressor (INC), imported and run without its log output.

This is the only module that imports it. Importing it takes seconds, so import this module where it is used.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

from dynamic_tinybert.runtime.common.errors import MissingExtraError

_NOISY_LOGGERS = ("neural_compressor", "torchao", "torch.utils._pytree")
_IPEX = "intel_extension_for_pytorch"


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress INC's progress messages and the warnings that its export causes."""
    levels = {name: logging.getLogger(name).level for name in _NOISY_LOGGERS}
    try:
        for name in _NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Strict export notices that transformers sets a context variable; the graph does not depend on it.
            warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _empty_ipex() -> Iterator[None]:
    """Satisfy `import intel_extension_for_pytorch`, which INC's SmoothQuant asks for but does not use here.

    It must be removed again: while it is in `sys.modules`, INC takes its IPEX path instead of PT2E.
    """
    module = ModuleType(_IPEX)
    module.__spec__ = ModuleSpec(_IPEX, loader=None)
    sys.modules[_IPEX] = module
    try:
        yield
    finally:
        del sys.modules[_IPEX]


try:
    import neural_compressor.common  # noqa: F401 - sets up the logger, whose level quiet() then raises

    with quiet():
        from neural_compressor.torch.export import export
        from neural_compressor.torch.quantization import StaticQuantConfig, prepare

        with _empty_ipex():
            from neural_compressor.torch.algorithms.smooth_quant.utility import (
                Calibration,
                SQLinearWrapper,
                cal_scale,
            )
except ImportError as error:
    raise MissingExtraError(
        f"INT8 calibration needs Intel Neural Compressor ({error}): pip install 'dynamic-tinybert[export]'"
    ) from error

__all__ = [
    "Calibration",
    "SQLinearWrapper",
    "StaticQuantConfig",
    "cal_scale",
    "export",
    "prepare",
    "quiet",
]
