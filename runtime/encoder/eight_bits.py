"""The constants of matrix products of 8 bits, as the extension reads them on this CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import extension_library, ops

DEPTH_STEP = 4
"""Numbers of one column that the extension multiplies at once: K must be a multiple."""


@dataclass(frozen=True)
class EightBitProduct:
    """y = (level(x) - zero_point) * weight, transposed, * scale + bias, where level(x) = x * units + zero_point.

    Attributes:
        weight: int8 [N, K].
        scale: Of each column's sums, the scale of the rows' levels included, float32 [N].
        bias: float32 [N].
        units: Levels in 1 for each number of a row, float32 [K]; None for rows that are quantised already.
        zero_point: The level of 0.
    """

    weight: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    units: npt.NDArray[np.float32] | None
    zero_point: float


def pack(
    products: Sequence[EightBitProduct], normalization: Sequence[npt.NDArray[np.float32]] = ()
) -> ops.PackedLinears:
    """All constants in one vector, which `quantized_linears.hpp` describes; a tensor more costs a call microseconds.

    Args:
        products: One after the other.
        normalization: Gamma and beta, float32 [N] each, if what comes out is normalised.

    Raises:
        ExtensionError: The extension cannot be loaded, or DYNAMIC_TINYBERT_ISA is none that this CPU runs.
    """
    isa = extension_library.isa()
    weights = [extension_library.packed_weights(product.weight, isa) for product in products]
    numbers = [] if products[0].units is None else [products[0].units]
    for product, following in zip(products, [*products[1:], None], strict=True):
        of_zero = product.zero_point * product.weight.sum(1, dtype=np.float64) * product.scale
        numbers += [product.scale, product.bias - of_zero]
        if following is not None and following.units is not None:
            numbers.append(following.units)
    floats = np.concatenate([*numbers, *normalization]).astype(np.float32)
    constants = np.concatenate([*weights, floats.view(np.int8)])
    return ops.PackedLinears(constants, isa, tuple(len(packed) for packed in weights))
