"""Read and check ``significance.safetensors``, which holds the learnt significance of a bundle's layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from dynamic_tinybert.runtime.bundles.model_sizes import LARGEST_WIDTH, MOST_LAYERS
from dynamic_tinybert.runtime.common.errors import BundleCorruptError
from dynamic_tinybert.runtime.length_config import EncoderShape

from .scorer import ContextRule, LayerSignificance, LearntScorer

CONTEXT_RULE = "context"
"""Name of the only tensor that the file has for a layer with the context rule, `ContextRule`."""

_Tensors = Mapping[str, npt.NDArray[np.float32]]
_MATCH = ("match_token", "match_question", "match")


def load_scorer_tensors(path: Path, shape: EncoderShape | None = None) -> dict[int, LayerSignificance]:
    """Read the file: the tensors of each layer's scorer, or the context rule, by layer.

    Args:
        path: The file.
        shape: Sizes of the encoder that the scorers belong to. Without it, their tensors must only fit each other.

    Raises:
        BundleCorruptError: The file cannot be read, or a scorer lacks a tensor or has one whose type, shape or values
            are wrong.
    """
    layers: defaultdict[int, dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
    try:
        with safe_open(path, "numpy") as file:  # type: ignore[no-untyped-call]
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if match := re.fullmatch(r"layer\.(0|[1-9][0-9]*)\.(.+)", name):
                    layers[_layer(path, match[1], shape)][match[2]] = _tensor(path, file, name)
    except (OSError, SafetensorError) as error:
        raise BundleCorruptError(f"{path} cannot be read: {error}; export or download the bundle again") from error
    hidden_size = None if shape is None else shape.hidden_size
    return {
        layer: _checked(f"{path}: the scorer of layer {layer}", tensors, hidden_size)
        for layer, tensors in layers.items()
    }


def _layer(path: Path, digits: str, shape: EncoderShape | None) -> int:
    most = MOST_LAYERS if shape is None else shape.num_layers
    if len(digits) > len(str(most)) or int(digits) >= most:
        raise BundleCorruptError(f"{path} has a scorer for layer {digits[:20]}, but there are at most {most} layers")
    return int(digits)


def _tensor(path: Path, file: Any, name: str) -> npt.NDArray[np.float32]:  # noqa: ANN401 - safetensors has no types
    if (kind := file.get_slice(name).get_dtype()) != "F32":
        raise BundleCorruptError(f"{path}: {name} is of type {kind}, but must be F32; export the checkpoint again")
    tensor: npt.NDArray[np.float32] = file.get_tensor(name)
    if not np.isfinite(tensor).all():
        raise BundleCorruptError(f"{path}: {name} holds {tensor[~np.isfinite(tensor)][0]}, but must be finite")
    return tensor


def _checked(scorer: str, tensors: _Tensors, hidden_size: int | None) -> LayerSignificance:
    """The significance that a layer's tensors define; BundleCorruptError if tensors are missing or do not fit."""
    significance: LayerSignificance
    expected: dict[str, tuple[int, ...]]
    if tensors.keys() == {CONTEXT_RULE}:
        significance, expected = ContextRule(), {CONTEXT_RULE: (1,)}
    else:
        significance = LearntScorer(tensors)
        expected = _shapes(scorer, significance, hidden_size)
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise BundleCorruptError(
                f"{scorer} has {name} of shape {list(tensors[name].shape)}, but its other tensors and the encoder need "
                f"{list(shape)}"
            )
    return significance


def _shapes(name_of_scorer: str, scorer: LearntScorer, hidden_size: int | None) -> dict[str, tuple[int, ...]]:
    """The shape that each tensor must have, given the encoder's hidden size or, without it, the scorer's own."""
    tensors, depth = scorer.tensors, scorer.depth
    parts = ["input", "output", *(f"{kind}.{k}" for kind in ("convolution", "mix") for k in range(depth))]
    needed = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    needed |= {f"{part}.weight" for part in (*_MATCH, *(["pool"] if depth else []))}
    if missing := needed - tensors.keys():
        raise BundleCorruptError(f"{name_of_scorer} lacks {sorted(missing)}")
    shapes = {name: tensors[name].shape for name in needed}
    dimensions = {"input.weight": 2, "match.weight": 2, "match_token.weight": 2}
    dimensions |= {f"convolution.{k}.weight": 3 for k in range(depth)}
    for name, count in dimensions.items():
        if len(shapes[name]) != count or not all(0 < size <= LARGEST_WIDTH for size in shapes[name]):
            raise BundleCorruptError(
                f"{name_of_scorer} has {name} of shape {list(shapes[name])}, but needs {count} dimensions of 1 to "
                f"{LARGEST_WIDTH}"
            )
    (width, inputs), (compared, _) = shapes["input.weight"], shapes["match_token.weight"]
    heads = shapes["match.weight"][1]
    hidden = inputs // 2 if hidden_size is None else hidden_size
    if compared % heads:
        raise BundleCorruptError(f"{name_of_scorer} compares {compared} numbers, not a multiple of its {heads} heads")
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
            raise BundleCorruptError(
                f"{name_of_scorer} has a convolution over {size} tokens; the number must be odd, so that it is centred "
                "on a token"
            )
        expected |= {f"convolution.{k}.weight": (width, 1, size), f"convolution.{k}.bias": (width,)}
        expected |= {f"mix.{k}.weight": (width, width), f"mix.{k}.bias": (width,)}
    return expected
