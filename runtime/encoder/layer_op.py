"""The extension's op of whole layers as a node of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13

from .extension_library import node_factory


def encoder_layers(
    state: ov.Output,
    mask: ov.Output,
    constants: Sequence[ov.Output],
    *,
    inner_widths: Sequence[int],
    heads: int,
    inv_scales: Sequence[float],
    zero_points: Sequence[float],
    epsilons: Sequence[float],
    isa: str,
    weight_bytes: Sequence[int],
) -> ov.Node:
    """Consecutive halves of encoder layers: the bits of `ops.quantized_linears` and `ops.attention`, in one node.

    Args:
        state: float32 [B, L, H].
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        constants: For each attention half the constants of query, key and value side by side, and of the output
            projection; for each feed-forward half its constants.
        inner_widths: For each half, the width between its two products if it is a feed-forward half, else 0.
        heads: Number of attention heads.
        inv_scales: For each half, the inv_scale by which attention quantises its context, else 0.
        zero_points: Two for each half: of the rows that its first and its second product read.
        epsilons: Of the LayerNorm of each half.
        isa: Instruction set for which all weights are packed, or "any".
        weight_bytes: Two for each half: sizes of the weights of its products.

    Returns:
        A node with one output, the state after the last half, float32 [B, L, H].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    attributes = {
        "inner_widths": list(inner_widths),
        "heads": heads,
        "zero_points": list(zero_points),
        "isa": isa,
        "weight_bytes": list(weight_bytes),
    }
    numbers = opset13.constant(np.array([inv_scales, epsilons], np.float32)).output(0)
    return node_factory().create("EncoderLayers", [state, mask, numbers, *constants], attributes)
