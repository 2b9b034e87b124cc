"""Load the weights of a checkpoint into its model, and the scorers that it was trained with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertPreTrainedModel
from transformers.utils import logging as transformers_logging

from dynamic_tinybert.runtime.bundles.files import CONFIG, SCORERS
from dynamic_tinybert.runtime.common.errors import BundleCorruptError, CheckpointError

from .checkpoint_kind import CheckpointKind, no_head
from .new_head import NewHead
from .scorer import Scorer, load_scorers
from .weights import read_weights


def load_model(source: str, folder: Path, kind: CheckpointKind, new_head: NewHead | None = None) -> BertPreTrainedModel:
    """Load the model, FP32, in evaluation mode, with eager attention.

    Args:
        source: Name of the checkpoint in error messages.
        folder: Holds config.json and the weights.
        kind: The result of `check_config`.
        new_head: The head to make, with random weights from PyTorch's generator, instead of one among the weights.

    Raises:
        CheckpointError: The weights cannot be read, do not fit config.json, are not finite, or lack the task's head.
    """
    weights = read_weights(source, folder, kind.head)
    config = _read_config(source, folder)
    if new_head is not None:
        weights = new_head.encoder_weights(weights)
        new_head.configure(config)
    elif kind.head not in weights:
        raise no_head(source, kind)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # mismatches are reported below
    try:
        loaded: tuple[BertPreTrainedModel, dict[str, Any]]
        architecture = kind.task.architecture if new_head is None else new_head.task.architecture
        loaded = architecture.from_pretrained(  # type: ignore[assignment]
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # raised below
        )
    except Exception as error:  # transformers and torch share no narrower base
        raise CheckpointError(f"cannot load the model of {source}: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    model, report = loaded
    missing = sorted(report["missing_keys"])
    sizes = sorted(report["mismatched_keys"])
    if new_head is None:
        headless = any(name.startswith(f"{linear}.") for name in missing for linear in kind.task.head_linears)
        if headless or not kind.task.fits(model, weights[kind.head]):
            raise no_head(source, kind)
    else:
        missing = new_head.without_its_weights(missing)
    surplus = sorted(name for name in report["unexpected_keys"] if "encoder.layer." in name)
    if missing or surplus:
        raise CheckpointError(
            f"the weights of {source} do not fit its {CONFIG}: missing {missing[:3]}, unknown {surplus[:3]}"
        )
    if sizes:
        name, found, expected = sizes[0]
        raise CheckpointError(
            f"the weights of {source} do not fit its {CONFIG}: {name} is {list(found)}, and should be {list(expected)}"
        )
    _check_finite(source, model)
    return model


def _read_config(source: str, folder: Path) -> BertConfig:
    try:
        return BertConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and huggingface_hub share no narrower base
        raise CheckpointError(f"cannot load the model of {source}: {error}") from error


def _check_finite(source: str, model: BertPreTrainedModel) -> None:
    for name, tensor in model.state_dict().items():
        if not (finite := tensor.isfinite()).all():
            raise CheckpointError(
                f"{name} of {source} holds NaN or infinite numbers, {int((~finite).sum())} of {tensor.numel()}: its "
                "training diverged, or its type has too small a range; use an earlier or an intact checkpoint"
            )


def load_trained_scorers(source: str, folder: Path, model: BertPreTrainedModel) -> dict[int, Scorer]:
    """The scorers that a checkpoint was trained with, by layer; empty if there are none.

    Raises:
        CheckpointError: Their file cannot be read, or does not fit the model.
    """
    if not (folder / SCORERS).is_file():
        return {}
    try:
        scorers = load_scorers(folder / SCORERS)
    except BundleCorruptError as error:
        raise CheckpointError(f"cannot load the scorers of {source}: {error}") from error
    config = model.config
    for layer, scorer in scorers.items():
        width = scorer.match_token.in_features
        if layer >= config.num_hidden_layers or width != config.hidden_size:
            raise CheckpointError(
                f"{SCORERS} of {source} has a scorer of layer {layer} for states of {width}, but the model has "
                f"{config.num_hidden_layers} layers of {config.hidden_size}; remove the file, or use the model that it "
                "was trained with"
            )
    return scorers
