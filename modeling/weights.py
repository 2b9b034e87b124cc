"""Read the weights of a PyTorch checkpoint without running code that they contain."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dynamic_tinybert.runtime.common.errors import CheckpointError

from .foreign import MERGE_FIRST, refuse_placeholder

PLACES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that may hold the weights; the first one that exists is read, as in transformers."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_weights(source: str, folder: Path, head: str) -> dict[str, Tensor]:
    """Read the weights, named as in transformers' class for the task, in the precision in which they are stored.

    A prefix of the head's name is removed from all names: `module.` of DataParallel, `_orig_mod.` of torch.compile,
    `model.` of a wrapping class.

    Args:
        source: Name of the checkpoint in error messages.
        folder: Holds one of `PLACES`.
        head: Name of one of the head's weights in transformers' class.

    Raises:
        CheckpointError: The weights cannot be read or are incomplete, quantised, or an adapter's.
    """
    place = next(folder / name for name in PLACES if (folder / name).is_file())
    weights: dict[str, Tensor] = {}
    for file in _shards(source, place):
        weights |= _read(source, file)
    if adapted := sorted(name for name in weights if "lora_" in name or ".base_layer." in name):
        raise CheckpointError(
            f"the weights of {source} are an adapter and its base model, not merged ({adapted[0]}); {MERGE_FIRST}"
        )
    heads = sorted(name for name in weights if name == head or name.endswith(f".{head}"))
    if len(heads) > 1:
        raise CheckpointError(f"{source} holds the weights of several models ({', '.join(heads)}); save one of them")
    for name, tensor in weights.items():
        if name.endswith((".weight", ".bias")) and tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{name} of {source} is stored as {tensor.dtype}: the checkpoint is quantised; use the float32, "
                "float16 or bfloat16 checkpoint that it was made from"
            )
    prefix = heads[0].removesuffix(head) if heads else ""
    in_order = sorted(weights.items(), key=lambda item: item[0].startswith(prefix))  # names with the prefix win
    return {name.removeprefix(prefix): tensor for name, tensor in in_order}


def _shards(source: str, place: Path) -> list[Path]:
    if place.suffix != ".json":
        return [place]
    refuse_placeholder(source, place)
    try:
        names = sorted(set(json.loads(place.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [place.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{place.name} of {source} is not an index of weights: {error!r}") from error
    outside = [name for name, file in zip(names, files, strict=True) if file.parent != place.parent]
    missing = [file.name for file in files if not file.is_file()]
    if outside or missing:
        raise CheckpointError(
            f"the weights of {source} are in {len(files)} files, and {', '.join((outside or missing)[:5])} "
            f"of {place.name} {'is outside its folder' if outside else 'is missing'}; download or save it again"
        )
    return files


def _read(source: str, file: Path) -> dict[str, Tensor]:
    refuse_placeholder(source, file)
    damaged = f"{file.name} of {source} is truncated or damaged ({file.stat().st_size} bytes)"
    if file.suffix == ".safetensors":
        try:
            return load(file.read_bytes())  # not memory-mapped: the file may be replaced while it is in use
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{damaged}: {error}; download or save it again") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of torch and of the file's contents share no narrower base
        if isinstance(error, pickle.UnpicklingError) and (object_type := re.search(r"GLOBAL (\S+)", str(error))):
            raise CheckpointError(
                f"{file.name} of {source} holds Python objects ({object_type[1]}), as torch.save(model) writes them; "
                "reading them would run code that is in the file. If you trust it, load it yourself and save the "
                "weights alone: model.save_pretrained(FOLDER), or torch.save(model.state_dict(), 'pytorch_model.bin')"
            ) from error
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{damaged}: {reason:.200}; download or save it again") from error
    return _tensors(source, file, content)


def _tensors(source: str, file: Path, content: Any) -> dict[str, Tensor]:  # noqa: ANN401 - of any pickle
    named = content if isinstance(content, Mapping) else {}
    tensors = {name: value for name, value in named.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(repr, list(named)[:6]))
        inside = f"a mapping of {keys}" if keys else f"a {type(content).__name__}"
        raise CheckpointError(
            f"{file.name} of {source} holds {inside}, not weights by name; if it is the state of a training run, take "
            "the model's weights out of it and save them: torch.save(state['state_dict'], 'pytorch_model.bin')"
        )
    return tensors
