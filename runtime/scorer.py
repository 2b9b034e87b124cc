"""The learnt significance of one layer, as OpenVINO operations (docs/bundle-format.md)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import BundleCorruptError

ScorerWeights = Mapping[str, npt.NDArray[np.float32]]
"""Tensors of one scorer by name, without the prefix ``layer.{i}.``."""


def load_scorers(path: Path) -> dict[int, ScorerWeights]:
    """Read the scorers of ``significance.safetensors`` by layer.

    Raises:
        BundleCorruptError: The file cannot be read, or a scorer lacks a tensor.
    """
    layers: defaultdict[int, dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleCorruptError(f"{path} cannot be read: {error}; export or download the bundle again") from error
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"layer\.(\d+)\.(.+)", name):
            layers[int(match[1])][match[2]] = tensor
    for layer, weights in layers.items():
        parts = ["input", "output", *(f"{kind}.{k}" for kind in ("convolution", "mix") for k in range(_depth(weights)))]
        if missing := {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")} - weights.keys():
            raise BundleCorruptError(f"{path}: the scorer of layer {layer} lacks {sorted(missing)}")
    return dict(layers)


def _depth(weights: ScorerWeights) -> int:
    return sum(name.startswith("mix.") and name.endswith(".weight") for name in weights)


def macs_per_token(weights: ScorerWeights) -> int:
    """Multiply-accumulates of a scorer for each token, the folding of the question left out."""
    width, inputs = weights["input.weight"].shape
    neighbours = sum(w.shape[2] for name, w in weights.items() if name.startswith("convolution.") and w.ndim == 3)
    mixing = sum(w.size for name, w in weights.items() if name.startswith("mix.") and w.ndim == 2)
    return int(inputs // 3 * width + neighbours * width + mixing + width)


def score(state: ov.Output, question: ov.Output, mask: ov.Output, weights: ScorerWeights) -> ov.Output:
    """Significance [B, L] = sigmoid of the scorer's logit, plus 1 for tokens of the question.

    Args:
        state: Layer state after attention's LayerNorm, [B, L, H].
        question: 1 for real tokens of the first segment, else 0, [B, L].
        mask: 0 for real tokens, -10000 for padding, [B, L].
        weights: Tensors of the scorer.
    """
    hidden = weights["input.weight"].shape[1] // 3
    by_state, by_product, by_question = (weights["input.weight"][:, k * hidden : (k + 1) * hidden] for k in range(3))
    count = ops.maximum(ops.reduce_sum(question, [1], True), np.float32(1))
    summed = ops.matmul(ops.unsqueeze(question, 1), state, False, False)
    mean = ops.divide(summed, ops.unsqueeze(count, 2))  # [B, 1, H]
    # W1·s + W2·(s*q) + W3·q = (W1 + W2·diag q)·s + W3·q: one narrow matmul per token
    folded = ops.add(by_state[None], ops.multiply(by_product[None], mean))
    offset = ops.add(ops.matmul(mean, by_question, False, True), weights["input.bias"])
    features = ops.gelu(ops.add(ops.matmul(state, folded, False, True), offset), "erf").output(0)
    real = ops.unsqueeze(ops.convert(ops.equal(mask, np.float32(0)), np.float32), 2)
    for k in range(_depth(weights)):
        mixed = ops.matmul(
            _over_neighbours(ops.multiply(features, real), weights, k),
            weights[f"mix.{k}.weight"],
            False,
            True,
        )
        features = ops.add(features, ops.gelu(ops.add(mixed, weights[f"mix.{k}.bias"]), "erf")).output(0)
    logit = ops.add(ops.matmul(features, weights["output.weight"], False, True), weights["output.bias"])
    return ops.add(ops.sigmoid(ops.squeeze(logit, 2)), question).output(0)


def _over_neighbours(features: ov.Node, weights: ScorerWeights, k: int) -> ov.Node:
    """Depthwise convolution over the positions of [B, L, W]."""
    kernel = weights[f"convolution.{k}.weight"]  # [W, 1, K]
    pad = kernel.shape[2] // 2
    last = [0, 2, 1]
    convolved = ops.group_convolution(
        ops.transpose(features, last), kernel[:, None], [1], [pad], [pad], [1], "explicit"
    )
    return ops.add(ops.transpose(convolved, last), weights[f"convolution.{k}.bias"])
