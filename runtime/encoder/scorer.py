"""The learnt significance of one layer: its tensors in the bundle, and as a node of a graph."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from safetensors import SafetensorError, safe_open

from dynamic_tinybert.runtime.bundles.model_sizes import LARGEST_WIDTH, MOST_LAYERS
from dynamic_tinybert.runtime.common.errors import BundleCorruptError
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig

from .learnt_layers import LearntLayers
from .ops import context_significance, learnt_significance

ScorerWeights = Mapping[str, npt.NDArray[np.float32]]
"""Tensors of one scorer by name, without the prefix ``layer.{i}.``."""

CONTEXT_RULE = "context"
"""The only tensor of a layer that goes by a rule instead: its significance is `ops.context_significance`."""

_COLUMNS = 16  # the op computes in so many at once
_MATCH = ("match_token", "match_question", "match")
_QUESTION = 16  # tokens of a question, to count with


def load_scorers(path: Path, shape: EncoderShape | None = None) -> dict[int, ScorerWeights]:
    """Read the scorers of ``significance.safetensors`` by layer.

    Args:
        path: The file.
        shape: Of the encoder that they are for; without it, they must fit each other only.

    Raises:
        BundleCorruptError: The file cannot be read, a scorer lacks a tensor, or has one of another type or size than
            the rest of the scorer and the encoder need, or whose numbers are not finite.
    """
    layers: defaultdict[int, dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
    try:
        with safe_open(path, "numpy") as file:  # type: ignore[no-untyped-call]
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if match := re.fullmatch(r"layer\.(0|[1-9][0-9]*)\.(.+)", name):
                    layers[_layer(path, match[1], shape)][match[2]] = _tensor(path, file, name)
    except (OSError, SafetensorError) as error:
        raise BundleCorruptError(f"{path} cannot be read: {error}; export or download the bundle again") from error
    for layer, weights in layers.items():
        _check_scorer(f"{path}: the scorer of layer {layer}", weights, None if shape is None else shape.hidden_size)
    return dict(layers)


def carried_out(
    length_config: LengthConfig, num_layers: int, scorers: Mapping[int, ScorerWeights] | None
) -> LengthConfig:
    """A length configuration as a model can carry it out, see `LearntLayers.carried_out`.

    Args:
        length_config: What is asked for.
        num_layers: Layers of the model.
        scorers: Its scorers by layer; None if it goes by attention, with which every layer can select.

    Raises:
        LengthConfigError: It has another number of layers, or a threshold where there is no scorer.
    """
    length_config.check_layers(num_layers)
    return length_config if scorers is None else learnt_layers(scorers).carried_out(length_config)


def learnt_layers(scorers: Mapping[int, ScorerWeights]) -> LearntLayers:
    """The layers that have a scorer, and those that go by the rule."""
    rules = frozenset(ruled_layers(scorers))
    return LearntLayers(frozenset(scorers) - rules, rules)


def _layer(path: Path, digits: str, shape: EncoderShape | None) -> int:
    most = MOST_LAYERS if shape is None else shape.num_layers
    if len(digits) > len(str(most)) or int(digits) >= most:
        raise BundleCorruptError(f"{path} has a scorer of layer {digits[:20]}, where there are at most {most} layers")
    return int(digits)


def _tensor(path: Path, file: Any, name: str) -> npt.NDArray[np.float32]:  # noqa: ANN401 - safetensors has no types
    if (kind := file.get_slice(name).get_dtype()) != "F32":
        raise BundleCorruptError(f"{path}: {name} is of type {kind}, and must be F32; export the checkpoint again")
    tensor: npt.NDArray[np.float32] = file.get_tensor(name)
    if not np.isfinite(tensor).all():
        raise BundleCorruptError(f"{path}: {name} holds {tensor[~np.isfinite(tensor)][0]}, and must be finite")
    return tensor


def _check_scorer(scorer: str, weights: ScorerWeights, hidden_size: int | None) -> None:
    """Raise BundleCorruptError unless the tensors of a scorer, or of a rule, are all there and fit each other."""
    if weights.keys() == {CONTEXT_RULE}:
        expected: dict[str, tuple[int, ...]] = {CONTEXT_RULE: (1,)}
    else:
        expected = _shapes(scorer, weights, hidden_size)
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise BundleCorruptError(
                f"{scorer} has {name} of shape {list(weights[name].shape)} where its other tensors and the encoder "
                f"need {list(shape)}"
            )


def _shapes(scorer: str, weights: ScorerWeights, hidden_size: int | None) -> dict[str, tuple[int, ...]]:
    depth = _depth(weights)
    parts = ["input", "output", *(f"{kind}.{k}" for kind in ("convolution", "mix") for k in range(depth))]
    needed = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    needed |= {f"{part}.weight" for part in (*_MATCH, *(["pool"] if depth else []))}
    if missing := needed - weights.keys():
        raise BundleCorruptError(f"{scorer} lacks {sorted(missing)}")
    shapes = {name: weights[name].shape for name in needed}
    dimensions = {"input.weight": 2, "match.weight": 2, "match_token.weight": 2}
    dimensions |= {f"convolution.{k}.weight": 3 for k in range(depth)}
    for name, count in dimensions.items():
        if len(shapes[name]) != count or not all(0 < size <= LARGEST_WIDTH for size in shapes[name]):
            raise BundleCorruptError(
                f"{scorer} has {name} of shape {list(shapes[name])}, and needs {count} dimensions of 1 to "
                f"{LARGEST_WIDTH}"
            )
    (width, inputs), (compared, _) = shapes["input.weight"], shapes["match_token.weight"]
    heads = shapes["match.weight"][1]
    hidden = inputs // 2 if hidden_size is None else hidden_size
    if compared % heads:
        raise BundleCorruptError(f"{scorer} compares {compared} numbers, no multiple of its {heads} heads")
    expected: dict[str, tuple[int, ...]] = {
        "input.weight": (width, 2 * hidden),
        "input.bias": (width,),
        "match_token.weight": (compared, hidden),
        "match_question.weight": (compared, hidden),
        "match.weight": (width, heads),
        "output.weight": (1, width),
        "output.bias": (1,),
    }
    if depth:
        expected["pool.weight"] = (width, width)
    for k in range(depth):
        size = shapes[f"convolution.{k}.weight"][2]
        if size % 2 == 0:
            raise BundleCorruptError(f"{scorer} has a convolution over {size} tokens; it must be odd, to centre on one")
        expected |= {f"convolution.{k}.weight": (width, 1, size), f"convolution.{k}.bias": (width,)}
        expected |= {f"mix.{k}.weight": (width, width), f"mix.{k}.bias": (width,)}
    return expected


def ruled_layers(scorers: Mapping[int, ScorerWeights]) -> list[int]:
    """The layers that go by the rule."""
    return [layer for layer, weights in scorers.items() if CONTEXT_RULE in weights]


def _depth(weights: ScorerWeights) -> int:
    return sum(name.startswith("mix.") and name.endswith(".weight") for name in weights)


def macs_per_token(weights: ScorerWeights) -> int:
    """Multiply-accumulates of a scorer for each token beside a question of 16; the question's own are left out."""
    if CONTEXT_RULE in weights:
        return 0
    width, inputs = weights["input.weight"].shape
    compared, heads = len(weights["match_token.weight"]), weights["match.weight"].shape[1]
    neighbours = sum(w.shape[2] for name, w in weights.items() if name.startswith("convolution.") and w.ndim == 3)
    mixing = sum(w.size for name, w in weights.items() if name.startswith("mix.") and w.ndim == 2)
    matching = (inputs // 2 + _QUESTION) * compared + heads * width
    return int(inputs // 2 * width + matching + neighbours * width + mixing + width)


def score(
    state: ov.Output, question: ov.Output, mask: ov.Output, weights: ScorerWeights, *, int12: bool = False
) -> ov.Output:
    """Significance [B, L] = sigmoid of the scorer's logit, plus 1 for tokens of the question; or what the rule says.

    Args:
        state: Layer state after attention's LayerNorm, [B, L, H].
        question: 1 for real tokens of the first segment, else 0, [B, L].
        mask: 0 for real tokens, -10000 for padding, [B, L].
        weights: Tensors of the scorer.
        int12: Project states with integers, see `ops.learnt_significance`.
    """
    if CONTEXT_RULE in weights:
        return context_significance(question, mask)
    match, of_token = weights["match.weight"], weights["match_token.weight"]  # [W, heads], [heads * head_size, H]
    head_size = len(of_token) // match.shape[1]
    of_state, of_mean = np.split(weights["input.weight"], 2, axis=1)
    panels = [of_state, of_token / np.float32(math.sqrt(head_size)), weights["match_question.weight"], of_mean]
    tensors = [*(_panels(weight) for weight in panels), _widened(weights["input.bias"]), _widened(match.T)]
    kernel_sizes = []
    for k in range(_depth(weights)):
        kernel = weights[f"convolution.{k}.weight"][:, 0].T
        kernel_sizes.append(len(kernel))
        tensors += [_widened(kernel), _widened(weights[f"convolution.{k}.bias"])]
        tensors += [_by_inputs(weights[f"mix.{k}.weight"]), _widened(weights[f"mix.{k}.bias"])]
    if kernel_sizes:
        tensors.append(_by_inputs(weights["pool.weight"]))
    tensors += [_widened(weights["output.weight"]), weights["output.bias"]]
    scorer = ops.constant(np.concatenate([tensor.ravel() for tensor in tensors])).output(0)
    return learnt_significance(
        state,
        question,
        mask,
        scorer,
        width=_widened(weights["input.bias"]).size,
        heads=match.shape[1],
        head_size=head_size,
        kernel_sizes=kernel_sizes,
        int12=int12,
    )


def _panels(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[W, H] as [W / 16, H, 16]."""
    return _widened(weight.T).reshape(weight.shape[1], -1, _COLUMNS).swapaxes(0, 1)


def _by_inputs(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[W, W] with a row for each input."""
    return _widened(_widened(weight).T)


def _widened(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Zeros behind the last axis up to what the op computes in; they change nothing."""
    return np.pad(tensor, [(0, 0)] * (tensor.ndim - 1) + [(0, -tensor.shape[-1] % _COLUMNS)])
