"""The learnt significance of one layer: its tensors in the bundle, and as a node of a graph."""

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
from .ops import learnt_significance

ScorerWeights = Mapping[str, npt.NDArray[np.float32]]
"""Tensors of one scorer by name, without the prefix ``layer.{i}.``."""

_COLUMNS = 16  # the op computes in so many at once


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
    tensors = [_panels(part) for part in np.split(weights["input.weight"], 3, axis=1)]
    tensors.append(_widened(weights["input.bias"]))
    width = tensors[-1].size
    kernel_sizes = []
    for k in range(_depth(weights)):
        kernel = weights[f"convolution.{k}.weight"][:, 0].T
        kernel_sizes.append(len(kernel))
        tensors += [_widened(kernel), _widened(weights[f"convolution.{k}.bias"])]
        tensors += [_widened(_widened(weights[f"mix.{k}.weight"]).T), _widened(weights[f"mix.{k}.bias"])]
    tensors += [_widened(weights["output.weight"]), weights["output.bias"]]
    scorer = ops.constant(np.concatenate([tensor.ravel() for tensor in tensors])).output(0)
    return learnt_significance(state, question, mask, scorer, width, kernel_sizes)


def _panels(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[W, H] as [W / 16, H, 16]."""
    return _widened(weight.T).reshape(weight.shape[1], -1, _COLUMNS).swapaxes(0, 1)


def _widened(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Zeros behind the last axis, a scorer's width, up to what the op computes in; they change nothing."""
    return np.pad(tensor, [(0, 0)] * (tensor.ndim - 1) + [(0, -tensor.shape[-1] % _COLUMNS)])
