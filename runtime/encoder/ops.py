"""The extension's ops as nodes of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13

from .eight_bits import PackedLinears
from .extension_library import node_factory


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
    keep_first: bool = False,
) -> tuple[ov.Output, ov.Output, ov.Output]:
    """Choose the tokens of each sequence that go on to the next layer: the most significant ones, in their order.

    Args:
        significance: float32 [B, L].
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        length: int32 [B], number of real tokens of each sequence before any layer dropped one.
        keep_ratio: float32 in (0, 1], [] or [1] for all sequences, or [B], one for each.
        threshold: float32 of one of these shapes, -inf for none.
        multiple: The number of slots n is rounded up to a multiple of this.
        static: Take n from shapes alone; `keep_ratio` must be a constant scalar and `threshold` the constant -inf.
        window: With `static`, the graph's own input length before any layer dropped a token; 0 means L.
        origins: The third output of the last layer that selected before, int32 [B, L]; None if none did.
        keep_first: Keep the first real token of each sequence in any case; it ranks before all others.

    Returns:
        Positions of the kept tokens in this input, int32 [B, n]; their mask, float32 [B, n]; and their origins,
        int32 [B, n], which are 1 + the position in the input of the first layer that selected. Unused slots of a
        sequence hold position L, for which Gather gives zeros, mask -10000 and origin 0.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    inputs = [significance, mask, length, keep_ratio, threshold, *([] if origins is None else [origins])]
    attributes = {"multiple": multiple, "static": static, "window": window, "keep_first": keep_first}
    node = node_factory().create("SelectTokens", inputs, attributes)
    return node.output(0), node.output(1), node.output(2)


def restore_logits(
    head: npt.NDArray[np.float32], state: ov.Output, fewer: Sequence[tuple[ov.Output, ov.Output]]
) -> ov.Output:
    """Start and end logits of all tokens, computed from the last state that each token had.

    Args:
        head: float32 [2, H + 1], the weights of each logit followed by its bias.
        state: States of all tokens, float32 [B, L, H].
        fewer: For each layer with fewer tokens, in order, their states, float32 [B, n, H], and their origins,
            int32 [B, n]: 1 + the position of each token in the original input; 0 for an unused slot.

    Returns:
        float32 [B, L, 2].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input that is not as above.
    """
    inputs = [opset13.constant(head).output(0), state, *chain.from_iterable(fewer)]
    return node_factory().create("RestoreLogits", inputs, {}).output(0)


def float_linear(rows: ov.Output, layer: npt.NDArray[np.float32], *, tanh: bool = False) -> ov.Output:
    """A linear layer in f32 for few rows, such as the first tokens of a batch.

    Args:
        rows: float32 [B, L, K].
        layer: float32 [N, K + 1], the weights of each column followed by its bias.
        tanh: Apply the hyperbolic tangent to the results.

    Returns:
        float32 [B, L, N].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input that is not as above.
    """
    inputs = [rows, opset13.constant(layer).output(0)]
    return node_factory().create("FloatLinear", inputs, {"tanh": tanh}).output(0)


def attention_with_significance(
    projections: ov.Output, mask: ov.Output, heads: int, *, int16: bool = False
) -> tuple[ov.Output, ov.Output]:
    """Self-attention that also gives the significance of each token.

    Args:
        projections: Query, key and value side by side, float32 [B, L, 3 D].
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        heads: Number of attention heads; D must be a multiple of it.
        int16: Multiply integers (12-bit queries and keys, 16-bit probabilities and values), which is faster than
            float32.

    Returns:
        The context, float32 [B, L, D], and the significance, float32 [B, L]: the attention probability that a token
        receives, summed over heads and real query tokens. Both are 0 at padding.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    attributes = {"heads": heads, "int16": int16}
    node = node_factory().create("AttentionWithSignificance", [projections, mask], attributes)
    return node.output(0), node.output(1)


def attention(
    projections: ov.Output,
    mask: ov.Output,
    heads: int,
    *,
    int16: bool = False,
    inv_scale: float = 0.0,
    zero_point: float = 0.0,
    query: ov.Output | None = None,
) -> ov.Output:
    """Self-attention without significance, whose output may be quantised.

    Args:
        projections: Query, key and value side by side, float32 [B, L, 3 D]; or, with `query`, key and value, [B, L,
            2 D].
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        heads: Number of attention heads; D must be a multiple of it.
        int16: Multiply integers, as in `attention_with_significance`.
        inv_scale: If above 0, the context is quantised: context * inv_scale + zero_point, rounded to even and clamped
            to 0 ... 255.
        zero_point: The quantised value that stands for 0.
        query: Queries of the first Q tokens alone, float32 [B, Q, D].

    Returns:
        The context of all tokens, or of those with a query, [B, L or Q, D]: float32 or, if `inv_scale` is above 0,
        uint8.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    attributes = {"heads": heads, "int16": int16, "inv_scale": inv_scale, "zero_point": zero_point}
    inputs = [projections, mask, *([] if query is None else [query])]
    return node_factory().create("Attention", inputs, attributes).output(0)


def quantized_linears(
    rows: ov.Output,
    packed: PackedLinears,
    *,
    widths: Sequence[int],
    zero_points: Sequence[float],
    epsilon: float | None = None,
    residual: ov.Output | None = None,
) -> ov.Node:
    """Consecutive 8-bit linear layers with GELU between them. No kernel is prepared for a new number of rows.

    Args:
        rows: uint8 [B, L, K]; or float32 [B, L, K], which the op quantises.
        packed: The layers' constants, from `eight_bits.pack`.
        widths: Number of outputs N of each layer.
        zero_points: For each layer, the quantised value that stands for 0 in its input rows.
        epsilon: If given, a residual is added to the last layer's result, and LayerNorm with this epsilon follows.
        residual: float32 [B, L, N]; by default the rows themselves.

    Returns:
        A node with one output, float32 [B, L, N].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    inputs = [
        rows,
        opset13.constant(packed.constants, shared_memory=True).output(0),
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
    """BERT's embeddings: the sum of each token's quantised word, segment and position embedding, then LayerNorm.

    Args:
        ids: Word ids, int32 [B, L].
        types: Segment of each token, int32 [B, L].
        words: Word embeddings, a constant int8 [V, H], which is not copied.
        scales: Scale of each word's embedding, V numbers.
        segments: Segment embeddings, [T, H].
        positions: Position embeddings, [P, H], P being the largest L.
        gamma: LayerNorm's factors, H numbers.
        beta: LayerNorm's summands, H numbers.
        epsilon: Added to the variance by LayerNorm.

    Returns:
        A node with one output, float32 [B, L, H].

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    tables = (scales, gamma, beta, segments, positions)
    numbers = opset13.constant(np.concatenate([table.ravel() for table in tables]).astype(np.float32))
    attributes = {"segments": len(segments), "positions": len(positions), "epsilon": epsilon}
    inputs = [ids, types, words, numbers.output(0)]
    return node_factory().create("QuantizedEmbeddings", inputs, attributes)


def learnt_significance(
    state: ov.Output,
    protected: ov.Output,
    mask: ov.Output,
    scorer: ov.Output,
    *,
    width: int,
    heads: int,
    head_size: int,
    kernel_sizes: Sequence[int],
    int12: bool = False,
) -> ov.Output:
    """Significance of each token by a layer's learnt scorer, float32 [B, L]: in [0, 1], plus `protected`.

    Args:
        state: float32 [B, L, H].
        protected: float32 [B, L], 1 for protected tokens, which the scorer treats as the question, else 0.
        mask: float32 [B, L], 0 for a real token and -10000 for padding.
        scorer: The scorer's tensors as one float32 vector, in the order that `learnt_significance.hpp` lists.
        width: Number of features, a multiple of 16.
        heads: Number of similarities between a token and the question.
        head_size: Length of the keys that are compared for each similarity.
        kernel_sizes: Width of each convolution in tokens, odd numbers.
        int12: Project states with 12-bit integers, which is faster than float32.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input or attribute that is not as above.
    """
    attributes = {
        "width": width,
        "heads": heads,
        "head_size": head_size,
        "kernel_sizes": list(kernel_sizes),
        "int12": int12,
    }
    node = node_factory().create("LearntSignificance", [state, protected, mask, scorer], attributes)
    return node.output(0)


def context_significance(protected: ov.Output, mask: ov.Output) -> ov.Output:
    """The context rule: significance that is 0 for the words of the question and 1 for all other tokens.

    Args:
        protected: float32 [B, L], 1 for [CLS], the first segment and its [SEP], else 0.
        mask: float32 [B, L], 0 for a real token and -10000 for padding.

    Returns:
        float32 [B, L]: 0 for a protected token between two other protected ones (a word of the question), 1 for all
        other tokens. In a sequence without context, 1 for all tokens.

    Raises:
        ExtensionError: The extension cannot be loaded.
        RuntimeError: OpenVINO refused an input that is not as above.
    """
    return node_factory().create("ContextSignificance", [protected, mask]).output(0)
