"""Find and load the C++ extension, check that it fits OpenVINO and this CPU, and ask which instruction sets it uses."""

from __future__ import annotations

import ctypes
import json
import os
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino.utils.node_factory import NodeFactory

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.common.errors import ExtensionError, InvalidInputError

from .gate import gate

_LIBRARY = "libdynamic_tinybert_extension.so"
_VARIABLE = "DYNAMIC_TINYBERT_EXTENSION"


def extension_path() -> Path:
    """Find the library of the extension: the one that DYNAMIC_TINYBERT_EXTENSION names, else the installed one.

    Raises:
        ExtensionError: The library does not exist.
    """
    named = os.environ.get(_VARIABLE)
    # In an editable install the package has several folders, and the library is not in the folder of this file.
    folders = import_module("dynamic_tinybert.runtime").__path__
    candidates = [Path(named)] if named else [Path(folder) / _LIBRARY for folder in folders]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    raise ExtensionError(
        f"the C++ extension is not at {' or '.join(map(str, candidates))}; "
        + (
            f"correct or unset {_VARIABLE}"
            if named
            else "install the package again (pip install --force-reinstall dynamic-tinybert, in a checkout "
            f"pip install .), or build it with CMake and name it in {_VARIABLE}"
        )
    )


def check_extension() -> Path:
    """Check that the extension exists, was built for this OpenVINO and can be loaded. Returns its path.

    Raises:
        ExtensionError: A check failed, or DYNAMIC_TINYBERT_ISA names an instruction set that this CPU cannot run.
    """
    path = extension_path()
    isa()
    _warn_of_distrusted(path)
    return path


def core() -> ov.Core:
    """The OpenVINO core of this process, with the ops registered.

    There is only one, and it is never destroyed: OpenVINO's CPU plugin gives the thread that creates a core a signal
    stack, and unmaps that stack when the core is destroyed, in whichever thread; any later signal ends the process.

    Raises:
        ExtensionError: The extension is missing or cannot work with this OpenVINO and CPU.
    """
    with gate:
        return _core(check_extension())


def node_factory() -> NodeFactory:
    """The factory that creates nodes of the ops by name.

    Raises:
        ExtensionError: The extension is missing or cannot work with this OpenVINO and CPU.
    """
    return _factory(check_extension())


def library() -> ctypes.CDLL:
    """The extension as a ctypes library, for its C functions.

    Raises:
        ExtensionError: It cannot be loaded.
    """
    return _library(extension_path())


def isa() -> str:
    """Name of the instruction set that new ops will use: the fastest, or the one that DYNAMIC_TINYBERT_ISA names.

    Raises:
        ExtensionError: The extension cannot be loaded, or DYNAMIC_TINYBERT_ISA names an instruction set that this CPU
            cannot run.
    """
    text = _call("dynamic_tinybert_isa")
    if text.startswith("error: "):
        raise ExtensionError(text.removeprefix("error: ").strip())
    return text


def available_isas() -> tuple[str, ...]:
    """Names of the instruction sets that this CPU can run, fastest first.

    Raises:
        ExtensionError: The extension cannot be loaded.
    """
    return tuple(_call("dynamic_tinybert_isas").split(","))


def refused_isas() -> tuple[str, ...]:
    """Names of the instruction sets that this CPU has but the operating system does not let this process use.

    Raises:
        ExtensionError: The extension cannot be loaded.
    """
    return tuple(filter(None, _call("dynamic_tinybert_refused_isas").split(",")))


def worth_fusing() -> bool:
    """Whether a fused INT8 graph of our ops is faster than OpenVINO's nodes, with the instruction set in use.

    Raises:
        ExtensionError: The extension cannot be loaded, or DYNAMIC_TINYBERT_ISA names an instruction set that this CPU
            cannot run.
    """
    isa()
    is_faster = library().dynamic_tinybert_is_worth_fusing
    is_faster.restype = ctypes.c_bool
    return bool(is_faster())


def distrusted_isas() -> tuple[str, ...]:
    """Names of the instruction sets that are not used because their kernels gave wrong results on this CPU.

    Raises:
        ExtensionError: The extension cannot be loaded.
    """
    return tuple(filter(None, _call("dynamic_tinybert_distrusted_isas").split(",")))


def packed_weights(weight: npt.NDArray[np.int8], isa: str) -> npt.NDArray[np.int8]:
    """Pack 8-bit weights for the kernels of an instruction set.

    Args:
        weight: int8 [N, K], K a multiple of 4.
        isa: Name of the instruction set.

    Returns:
        A vector in the layout of these kernels, whose size depends on the instruction set.

    Raises:
        ExtensionError: The extension cannot be loaded, or this CPU cannot run the instruction set.
        InvalidInputError: The weights have another shape.
    """
    if weight.ndim != 2 or not weight.size or weight.shape[1] % 4:
        raise InvalidInputError(f"weights of shape {weight.shape} cannot be packed; give [N, K], K a multiple of 4")
    if isa not in available_isas():
        raise ExtensionError(f"this CPU cannot run {isa!r}; pack weights for one of {', '.join(available_isas())}")
    pack = _library(extension_path()).dynamic_tinybert_pack
    pack.restype = ctypes.c_size_t
    pack.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    weight = np.ascontiguousarray(weight, np.int8)
    arguments = (isa.encode(), weight.ctypes.data, *weight.shape)
    packed = np.empty(pack(*arguments, None), np.int8)
    pack(*arguments, packed.ctypes.data)
    return packed


@cache
def _warn_of_distrusted(path: Path) -> None:
    """Warn once about kernels that give wrong results on this CPU."""
    if distrusted := distrusted_isas():
        warnings.warn(
            f"on this CPU, {cpu.name()}, the kernels for {', '.join(distrusted)} give wrong results; "
            f"{isa()} is used instead. Please report this",
            RuntimeWarning,
            stacklevel=2,
        )


def _call(function: str) -> str:
    text_of = getattr(library(), function)
    text_of.restype = ctypes.c_char_p
    return str(text_of().decode())


@cache
def _library(path: Path) -> ctypes.CDLL:
    """Load the extension after checking that it was built for this OpenVINO."""
    record = path.with_name("extension-build.json")
    try:
        built_for = json.loads(record.read_text())["openvino"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExtensionError(
            f"cannot read {record}, which records the OpenVINO version that {path.name} was built for ({error!r}); "
            "install the package again, or keep the file that CMake writes beside the library"
        ) from error
    running = ov.__version__.partition("-")[0]
    if built_for != running:
        raise ExtensionError(
            f"{path} was built for OpenVINO {built_for}, but OpenVINO {running} is installed; "
            f"run: pip install openvino=={built_for}"
        )
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ExtensionError(f"cannot load {path}: {error}; install the package again") from error


@cache
def _core(path: Path) -> ov.Core:
    core = ov.Core()
    core.add_extension(path)
    return core


@cache
def _factory(path: Path) -> NodeFactory:
    factory = NodeFactory()
    factory.add_extension(path)
    return factory
