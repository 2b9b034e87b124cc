"""The extension's ops as nodes of a graph."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13

from .extension_library import node_factory


@dataclass(frozen=True)
class PackedLinears:
    """What `quantized_linears` multiplies by; `eight_bits.pack` makes it.

    Attributes:
        constants: int8 vector, as `quantized_linears.hpp` describes it.
        isa: The instruction set that it is packed for.
        weight_bytes: Of each product's weights.
    """

    constants: npt.NDArray[np.int8]
    isa: str
    weight_bytes: tuple[int, ...]


def select_tokens(
    significance: ov.Output,
    mask: ov.Output,
    length: ov.Output,
    keep_ratio: ov.Output,
    threshold: ov.Output,
    multiple: int = 1,
    static: bool = False,
    window: int = 0,
    origins: ov.Output | None = None,
) -> tuple[ov.Output, ov.Output, ov.Output]:
    """Which tokens of each sequence go on: the most significant ones, in their order.

    Args:
        significance: float32 [B, L].
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        length: int32 [B], real tokens of each sequence before any layer dropped one.
        keep_ratio: float32 scalar in (0, 1].
        threshold: float32 scalar, -inf for none.
        multiple: The number of slots n is rounded up to a multiple of it.
        static: Take n from shapes alone; `keep_ratio` must be a constant and `threshold` the constant -inf.
        window: With `static`, the graph's own input length before any layer dropped a token; 0 means L.
        origins: Of the layer that selected before, if one did, int32 [B, L].

    Returns:
        The positions in this input of the tokens kept, int32 [B, n], their mask, float32 [B, n], and their origins,
        int32 [B, n]: 1 + the position in the input of the first layer that selected. Slots that a sequence leaves
        empty hold position L, for which Gather gives zeros, mask -10000 and origin 0.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input or attribute is not as above.
    """
    inputs = [significance, mask, length, keep_ratio, threshold, *([] if origins is None else [origins])]
    attributes = {"multiple": multiple, "static": static, "window": window}
    node = node_factory().create("SelectTokens", inputs, attributes)
    return node.output(0), node.output(1), node.output(2)


def restore_logits(
    head: npt.NDArray[np.float32], state: ov.Output, fewer: Sequence[tuple[ov.Output, ov.Output]]
) -> ov.Output:
    """Start and end logits of all tokens, each from the last layer that had it.

    Args:
        head: float32 [2, H + 1], for each logit its weights and, last, its bias.
        state: float32 [B, L, H], of all tokens.
        fewer: For each layer that had fewer tokens its state, float32 [B, n, H], and their origins, int32 [B, n]: 1 +
            where each token stood in the original input; 0 for one that stands nowhere.

    Returns:
        float32 [B, L, 2].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input is not as above.
    """
    inputs = [opset13.constant(head).output(0), state, *chain.from_iterable(fewer)]
    return node_factory().create("RestoreLogits", inputs, {}).output(0)


def attention_with_significance(
    projections: ov.Output, mask: ov.Output, heads: int, *, int16: bool = False
) -> tuple[ov.Output, ov.Output]:
    """Self-attention that also gives each token's significance.

    Args:
        projections: Query, key and value side by side, float32 [B, L, 3 D].
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        heads: Attention heads; D must be a multiple.
        int16: Multiply integers, queries and keys of 12 bits, probabilities and values of 16, which is faster than
            float32.

    Returns:
        The context, float32 [B, L, D], and the significance, float32 [B, L]: attention probability that each
        token receives, summed over heads and real tokens. Both are 0 at padding.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input or `heads` is not as above.
    """
    attributes = {"heads": heads, "int16": int16, "significance": True}
    node = node_factory().create("AttentionWithSignificance", [projections, mask], attributes)
    return node.output(0), node.output(1)


def attention(
    projections: ov.Output,
    mask: ov.Output,
    heads: int,
    *,
    int16: bool = False,
    units: float = 0.0,
    zero_point: float = 0.0,
) -> ov.Output:
    """The context alone of `attention_with_significance`.

    With `units` above 0 it is uint8: context * units + zero_point, rounded to even and held within 0 ... 255.
    """
    attributes = {"heads": heads, "int16": int16, "significance": False, "units": units, "zero_point": zero_point}
    return node_factory().create("AttentionWithSignificance", [projections, mask], attributes).output(0)


def quantized_linears(
    rows: ov.Output,
    packed: PackedLinears,
    *,
    widths: Sequence[int],
    zero_points: Sequence[float],
    epsilon: float | None = None,
    residual: ov.Output | None = None,
) -> ov.Node:
    """Matrix products of 8 bits one after the other, GELU between them, quick at any number of rows.

    Args:
        rows: uint8 [B, L, K]; or float32, which the op quantises.
        packed: What `eight_bits.pack` makes of the products.
        widths: N of each product.
        zero_points: What 0 in the rows of each product is quantised to.
        epsilon: With it a residual is added to the last product, and the sum normalised over its last axis; added to
            the variance.
        residual: float32 [B, L, N]; the rows themselves if not given.

    Returns:
        A node with one output, float32 [B, L, N].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input or attribute is not as above.
    """
    inputs = [
        rows,
        opset13.constant(_shared(packed.constants), shared_memory=True).output(0),
        *([] if residual is None else [residual]),
    ]
    attributes = {
        "widths": list(widths),
        "zero_points": list(zero_points),
        "normalizes": epsilon is not None,
        "epsilon": 0.0 if epsilon is None else epsilon,
        "isa": packed.isa,
        "weight_bytes": list(packed.weight_bytes),
    }
    return node_factory().create("QuantizedLinears", inputs, attributes)


def quantized_embeddings(
    ids: ov.Output,
    types: ov.Output,
    words: ov.Output,
    *,
    scales: npt.NDArray[np.float32],
    segments: npt.NDArray[np.float32],
    positions: npt.NDArray[np.float32],
    gamma: npt.NDArray[np.float32],
    beta: npt.NDArray[np.float32],
    epsilon: float,
) -> ov.Node:
    """What enters the first layer: each token's word times its scale, its segment and its position, normalised.

    Args:
        ids: Of words, int32 [B, L].
        types: Of segments, int32 [B, L].
        words: int8 [V, H], a constant, which is not copied.
        scales: Of each word, V numbers.
        segments: [T, H].
        positions: [P, H], P being the longest L.
        gamma: H numbers.
        beta: H numbers.
        epsilon: Added to the variance.

    Returns:
        A node with one output, float32 [B, L, H].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input or attribute is not as above.
    """
    tables = (scales, gamma, beta, segments, positions)
    numbers = opset13.constant(np.concatenate([table.ravel() for table in tables]).astype(np.float32))
    attributes = {"segments": len(segments), "positions": len(positions), "epsilon": epsilon}
    inputs = [ids, types, words, numbers.output(0)]
    return node_factory().create("QuantizedEmbeddings", inputs, attributes)


def learnt_significance(
    state: ov.Output,
    question: ov.Output,
    mask: ov.Output,
    scorer: ov.Output,
    *,
    width: int,
    heads: int,
    head_size: int,
    kernel_sizes: Sequence[int],
    int12: bool = False,
) -> ov.Output:
    """How much each token matters, by a layer's scorer, float32 [B, L]: in [0, 1], plus `question`.

    Args:
        state: float32 [B, L, H].
        question: float32 [B, L], 1 for protected tokens, else 0.
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        scorer: float32 vector of its tensors, as `learnt_significance.hpp` lists them.
        width: Of the scorer, a multiple of 16.
        heads: Ways in which a token may be like one of the question's.
        head_size: Numbers that are compared for each.
        kernel_sizes: Tokens that each neighbourhood's convolution sees, odd.
        int12: Project states with integers of 12 bits, which is faster than float32.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input or attribute is not as above.
    """
    attributes = {
        "width": width,
        "heads": heads,
        "head_size": head_size,
        "kernel_sizes": list(kernel_sizes),
        "int12": int12,
    }
    node = node_factory().create("LearntSignificance", [state, question, mask, scorer], attributes)
    return node.output(0)


def context_significance(question: ov.Output, mask: ov.Output) -> ov.Output:
    """Which tokens a layer needs behind which the question's words have done their work, float32 [B, L].

    Args:
        question: float32 [B, L], 1 for protected tokens ([CLS], the first segment and its [SEP]), else 0.
        mask: float32 [B, L], 0 for a real token and -10000 for padding.

    Returns:
        0 for the words of the question, which stand between two protected tokens, and 1 for all others; 1 for all
        tokens of a sequence that has no context.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: From OpenVINO, an input is not as above.
    """
    return node_factory().create("ContextSignificance", [question, mask]).output(0)


_known: WeakValueDictionary[bytes, npt.NDArray[np.int8]] = WeakValueDictionary()  # by digest


def _shared(constants: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Of all equal constants one array, which begins with a line of the cache: graphs of the same products share it."""
    key = hashlib.sha256(constants.data).digest()
    shared = _known.get(key)
    if shared is None:
        memory = np.empty(constants.size + 63, np.int8)
        shared = memory[-memory.ctypes.data % 64 :][: constants.size]
        shared[:] = constants
        shared = _known.setdefault(key, shared)
    return shared
