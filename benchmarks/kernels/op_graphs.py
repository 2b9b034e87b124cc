"""The graphs that ops.py times: for each shape, small graphs of our ops or of stock ones, and their expected outputs.

Batch 1, no padding, and static shapes, with which stock OpenVINO is fastest. All inputs are f32, which is what
attention gets from INT8 layers, too; INT8 variants quantise them themselves. The inputs lie on an INT8 grid, so that a
fixed step loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino import opset13 as ops

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime.encoder import ops as ours
from dynamic_tinybert.runtime.encoder.scorer import LearntScorer, macs_per_token, score

Array = npt.NDArray[Any]
Outputs = Sequence[ov.Node | ov.Output]

HEADS = 12
STEP = np.float32(1 / 32)  # of the INT8 grid
INT8_TOLERANCE = 0.03  # for steps that follow the inputs; contexts are near 1, significance near 12
FUSED = "attention: stock, fused"


@dataclass(frozen=True)
class Variant:
    """One way to compute something."""

    inputs: Sequence[Array]
    build: Callable[..., Outputs]  # from the graph's inputs
    expected: Sequence[Array]
    flops: int = 0
    base: str = FUSED  # the variant whose time is compared with
    overhead: str | None = None  # the variant whose time is subtracted first: the same graph with one token
    tolerance: float = 1e-4


def variants(tokens: int, width: int, keep_ratios: Sequence[float]) -> dict[str, Variant]:
    """All variants of one shape by name."""
    generator = np.random.default_rng(0)
    normal = generator.standard_normal((4, 1, tokens, width), np.float32)
    query, key, value, state = np.clip(np.rint(normal / STEP), -128, 127) * STEP
    mask = np.zeros((1, tokens), np.float32)
    question = (np.arange(tokens) < tokens // 8).astype(np.float32)[None]
    length = np.array([tokens], np.int32)

    qkv = (query, key, value, mask)
    together = (np.concatenate([query, key, value], axis=2), mask)
    context, significance = attention(query, key, value)
    flops = 4 * tokens**2 * width
    torch.manual_seed(0)
    scorer = Scorer(width)
    weights = LearntScorer({name: tensor.numpy() for name, tensor in scorer.state_dict().items()})
    scored = (state, question, mask)
    with torch.inference_mode():
        learnt = scorer(*map(torch.from_numpy, (state, question, np.ones_like(mask)))).numpy()
    scorer_flops = 2 * tokens * macs_per_token(weights)

    def select(ratio: float, significance: Array, *rows: Array) -> list[Array]:
        kept = np.sort(np.argsort(-significance[0])[: count(ratio, tokens)])
        return [array[:, kept] for array in (mask, *rows)]

    one_mask, one_state = mask[:, :1], state[:, :1]
    one_token = (one_mask, one_mask, np.ones(1, np.int32), one_state)
    table = {
        FUSED: Variant(qkv, fused_attention, [context], flops),
        "attention: stock, fused, INT8 QKᵀ": Variant(qkv, int8_fused_attention, [context], flops),
        "attention: ours": Variant(together, our_attention, [context], flops),
        "attention: ours, INT8": Variant(
            together, partial(our_attention, int16=True), [context], flops, tolerance=INT8_TOLERANCE
        ),
        "attention + significance: stock": Variant(qkv, stock_significance, [context, significance], flops),
        "attention + significance: ours": Variant(together, our_significance, [context, significance], flops),
        "attention + significance: ours, INT8": Variant(
            together, partial(our_significance, int16=True), [context, significance], flops, tolerance=INT8_TOLERANCE
        ),
        "scorer: ours": Variant(scored, partial(our_scorer, weights), [learnt], scorer_flops),
        "scorer: ours, INT8": Variant(
            scored, partial(our_scorer, weights, int12=True), [learnt], scorer_flops, tolerance=INT8_TOLERANCE
        ),
        "empty: ours": Variant(one_token, partial(selection, our_selection, 1), [one_mask, one_state]),
        "empty: stock": Variant(one_token, partial(selection, stock_selection, 1), [one_mask, one_state]),
        "empty: copy": Variant([state[:, :2]], copy, [state[:, 1:2]]),
    }
    for ratio in keep_ratios:
        selected = select(ratio, significance, state)
        attended = select(ratio, significance, context, state)
        copied, kept_rows = f"copy {ratio}", selected[1]
        source = np.concatenate([kept_rows[:, :1], kept_rows], axis=1)
        table[copied] = Variant([source], copy, [kept_rows], base=copied, overhead="empty: copy")
        for whose, attend, choose, given in (
            ("stock", stock_significance, stock_selection, qkv),
            ("ours", our_significance, our_selection, together),
        ):
            alone = partial(selection, choose, ratio)
            both = partial(attention_with_selection, attend, choose, ratio)
            table[f"select {ratio}: {whose}"] = Variant(
                (significance, mask, length, state), alone, selected, base=copied, overhead=f"empty: {whose}"
            )
            table[f"attention + select {ratio}: {whose}"] = Variant((*given, length, state), both, attended, flops)
        table[f"scorer + select {ratio}: ours"] = Variant(
            (*scored, length),
            partial(scorer_with_selection, weights, ratio),
            select(ratio, learnt, state),
            scorer_flops,
        )
    return table


def count(keep_ratio: float, tokens: int) -> int:
    """Number of tokens that are kept (docs/bundle-format.md)."""
    return max(1, math.ceil(keep_ratio * tokens - 1e-4))


def attention(*qkv: Array) -> tuple[Array, Array]:
    """The expected result of attention, computed in float64: context [1, L, D] and significance [1, L]."""
    heads = (np.stack(np.split(x[0].astype(np.float64), HEADS, axis=1)) for x in qkv)  # [heads, L, D / heads]
    query, key, value = heads
    scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[2])
    probabilities = np.exp(scores - scores.max(2, keepdims=True))
    probabilities /= probabilities.sum(2, keepdims=True)
    context = np.concatenate(list(probabilities @ value), axis=1)
    return context[None].astype(np.float32), probabilities.sum((0, 1))[None].astype(np.float32)


def split_heads(x: ov.Node | ov.Output) -> ov.Node:
    return ops.transpose(ops.reshape(x, [0, 0, HEADS, x.get_shape()[2] // HEADS], True), [0, 2, 1, 3])


def merge_heads(x: ov.Node) -> ov.Node:
    width = HEADS * x.get_output_shape(0)[3]
    return ops.reshape(ops.transpose(x, [0, 2, 1, 3]), [0, 0, width], True)


def fused_attention(query: ov.Output, key: ov.Output, value: ov.Output, mask: ov.Output) -> Outputs:
    """As in the bundle's graph (export/ir.py)."""
    query, key, value = (split_heads(x) for x in (query, key, value))
    return [merge_heads(ops.scaled_dot_product_attention(query, key, value, ops.unsqueeze(mask, [1, 2])))]


def int8_fused_attention(query: ov.Output, key: ov.Output, value: ov.Output, mask: ov.Output) -> Outputs:
    """As NNCF quantises it: query and key, not probabilities and value."""
    low, high = -128 * STEP, 127 * STEP
    query, key = (ops.fake_quantize(x, low, high, low, high, 256).output(0) for x in (query, key))
    return fused_attention(query, key, value, mask)


def stock_significance(query: ov.Output, key: ov.Output, value: ov.Output, mask: ov.Output) -> Outputs:
    """Attention with significance by stock ops. Probabilities have two uses, so nothing is fused around the softmax."""
    query, key, value = (split_heads(x) for x in (query, key, value))
    scale = np.float32(1 / math.sqrt(key.get_output_shape(0)[3]))
    scores = ops.add(ops.matmul(ops.multiply(query, scale), key, False, True), ops.unsqueeze(mask, [1, 2]))
    probabilities = ops.softmax(scores, 3)
    real = ops.convert(ops.equal(ops.unsqueeze(mask, [1, 2]), np.float32(0)), np.float32)  # a row of real queries
    sums = ops.matmul(real, probabilities, False, False)
    return [merge_heads(ops.matmul(probabilities, value, False, False)), ops.reduce_sum(sums, [1, 2], False)]


def our_attention(projections: ov.Output, mask: ov.Output, *, int16: bool = False) -> Outputs:
    """Query, key and value come side by side, from one matrix product."""
    return [ours.attention(projections, mask, HEADS, int16=int16)]


def our_significance(projections: ov.Output, mask: ov.Output, *, int16: bool = False) -> Outputs:
    return ours.attention_with_significance(projections, mask, HEADS, int16=int16)


def our_scorer(
    weights: LearntScorer, state: ov.Output, question: ov.Output, mask: ov.Output, *, int12: bool = False
) -> Outputs:
    return [score(state, question, mask, weights, int12=int12)]


def stock_selection(ratio: float, significance: ov.Output, mask: ov.Output, length: ov.Output) -> Outputs:
    kept = count(ratio, mask.get_shape()[1])
    best, positions = ops.topk(ops.add(significance, mask), kept, 1, "max", "index").outputs()
    padding = ops.convert(ops.less(best, np.float32(-5000)), np.float32)
    return positions, ops.multiply(padding, np.float32(-10000))


def our_selection(ratio: float, significance: ov.Output, mask: ov.Output, length: ov.Output) -> Outputs:
    keep_ratio, threshold = (ops.constant(np.float32(bound)).output(0) for bound in (ratio, -np.inf))
    return ours.select_tokens(significance, mask, length, keep_ratio, threshold, static=True)[:2]


def selection(
    choose: Callable[..., Outputs],
    ratio: float,
    significance: ov.Output,
    mask: ov.Output,
    length: ov.Output,
    *rows: ov.Output,
) -> Outputs:
    """The mask of the kept tokens, and their rows in each of `rows`."""
    positions, kept_mask = choose(ratio, significance, mask, length)
    return [kept_mask, *(ops.gather(row, positions, 1, batch_dims=1) for row in rows)]


def attention_with_selection(
    attend: Callable[..., Outputs], choose: Callable[..., Outputs], ratio: float, *inputs: ov.Output
) -> Outputs:
    *qkv, mask, length, state = inputs
    context, significance = attend(*qkv, mask)
    return selection(choose, ratio, significance, mask, length, context, state)


def scorer_with_selection(
    weights: LearntScorer, ratio: float, state: ov.Output, question: ov.Output, mask: ov.Output, length: ov.Output
) -> Outputs:
    significance = score(state, question, mask, weights)
    return selection(our_selection, ratio, significance, mask, length, state)


def copy(source: ov.Output) -> Outputs:
    """All rows but the first, which OpenVINO copies row by row with memcpy on its threads."""
    return [ops.slice(source, [1], [source.get_shape()[1]], [1], [1])]
