"""The constants of matrix products of 8 bits, as the extension reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DEPTH_STEP = 4
"""Numbers of one column that the extension multiplies at once: K must be a multiple."""

_PANEL = 64  # columns that lie together, as `linear_kernels.hpp` has it


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
) -> npt.NDArray[np.int8]:
    """All constants in one vector, which `quantized_linears.hpp` describes; a tensor more costs a call microseconds.

    Args:
        products: One after the other.
        normalization: Gamma and beta, float32 [N] each, if what comes out is normalised.
    """
    numbers = [] if products[0].units is None else [products[0].units]
    for product, following in zip(products, [*products[1:], None], strict=True):
        of_zero = product.zero_point * product.weight.sum(1, dtype=np.float64) * product.scale
        numbers += [product.scale, product.bias - of_zero]
        if following is not None and following.units is not None:
            numbers.append(following.units)
    floats = np.concatenate([*numbers, *normalization]).astype(np.float32)
    return np.concatenate([*(_panels(product.weight) for product in products), floats.view(np.int8)])


def _panels(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    width, depth = weight.shape
    filled = np.zeros((-(-width // _PANEL) * _PANEL, depth), np.int8)
    filled[:width] = weight
    panels = filled.reshape(-1, _PANEL, depth // DEPTH_STEP, DEPTH_STEP).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels).ravel()
