"""Pack the constants of 8-bit linear layers in the layout that the extension's kernels read on this CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from . import extension_library

DEPTH_STEP = 4
"""The extension multiplies this many numbers of a column at once: K must be a multiple of it."""


@dataclass(frozen=True)
class EightBitProduct:
    """A linear layer on 8-bit rows: y = (q - zero_point) * weight^T * scale + bias, with integers q of 0 ... 255.

    Attributes:
        weight: int8 [N, K].
        scale: Scale of each column of the product, float32 [N]: scale of the weight times scale of q.
        bias: float32 [N].
        inv_scale: For rows x that must be quantised first, q = x * inv_scale + zero_point: 1 / scale of each column of
            x, float32 [K]. None for rows that are quantised already.
        zero_point: The q that stands for 0.
    """

    weight: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    inv_scale: npt.NDArray[np.float32] | None
    zero_point: float


@dataclass(frozen=True)
class PackedLinears:
    """Constants of consecutive linear layers, for `ops.quantized_linears`.

    Attributes:
        constants: int8 vector, as `quantized_linears.hpp` describes it; equal ones share their memory.
        isa: The instruction set whose kernels read it; "any" if the op packs the weights itself.
        weight_bytes: Size of each layer's weights.
    """

    constants: npt.NDArray[np.int8]
    isa: str
    weight_bytes: tuple[int, ...]


ANY_ISA = "any"
"""Stands for an instruction set where the op packs the weights when it first runs, for the CPU that it runs on."""


def pack(
    products: Sequence[EightBitProduct],
    normalization: Sequence[npt.NDArray[np.float32]] = (),
    *,
    portable: bool = False,
) -> PackedLinears:
    """Put all constants into one vector: each further input of an op would cost microseconds per call.

    Args:
        products: Consecutive layers, at least one.
        normalization: Gamma and beta of the LayerNorm after the last layer, float32 [N] each; empty without one.
        portable: Leave the weights unpacked, for a graph that is stored and may run on another CPU.

    Raises:
        ExtensionError: The extension cannot be loaded, or DYNAMIC_TINYBERT_ISA names an instruction set that this CPU
            cannot run.
    """
    isa = ANY_ISA if portable else extension_library.isa()
    weights = [
        np.ascontiguousarray(product.weight, np.int8).ravel()
        if portable
        else extension_library.packed_weights(product.weight, isa)
        for product in products
    ]
    numbers = [] if products[0].inv_scale is None else [products[0].inv_scale]
    for product, following in zip(products, [*products[1:], None], strict=True):
        of_zero_point = product.zero_point * product.weight.sum(1, dtype=np.float64) * product.scale
        numbers += [product.scale, product.bias - of_zero_point]
        if following is not None and following.inv_scale is not None:
            numbers.append(following.inv_scale)
    floats = np.concatenate([*numbers, *normalization]).astype(np.float32)
    constants = np.concatenate([*weights, floats.view(np.int8)])
    return PackedLinears(_shared(constants), isa, tuple(len(packed) for packed in weights))


_known: WeakValueDictionary[bytes, npt.NDArray[np.int8]] = WeakValueDictionary()  # by digest


def _shared(constants: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """One cache-aligned array for all equal constants, so that the graphs of a model share their weights."""
    key = hashlib.sha256(constants.data).digest()
    shared = _known.get(key)
    if shared is None:
        memory = np.empty(constants.size + 63, np.int8)
        shared = memory[-memory.ctypes.data % 64 :][: constants.size]
        shared[:] = constants
        shared = _known.setdefault(key, shared)
    return shared
