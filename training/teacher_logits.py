"""What a model believes before it is trained, as a teacher of what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.modeling.precision import half_precision
from dynamic_tinybert.runtime.common.publish import writing

from .batches import collate, inputs_of
from .data import AnsweredWindow

TAUGHT = "taught.npz"
"""In the folder of a training."""

_BATCH = 32


def with_taught(
    windows: Sequence[AnsweredWindow], model: BertForQuestionAnswering, file: Path, say: Callable[[str], None]
) -> list[AnsweredWindow]:
    """The windows with the logits that a model gives to them.

    Args:
        windows: The windows.
        model: The model, as it is now.
        file: Keeps the logits; if it is there, they are read from it.
        say: Receives a line before it takes long.

    Raises:
        StorageError: The file could not be written.
    """
    if not file.exists():
        say(f"Asking the model what it believes of {len(windows)} windows")
        logits = _logits_of(windows, model)
        partly = file.with_name(f"partly-{file.name}")
        with writing(file):
            np.savez(partly, logits=np.concatenate(logits, 1))
            partly.replace(file)
    with np.load(file) as saved:
        ends = np.cumsum([len(window) for window in windows])
        taught = np.split(saved["logits"], ends[:-1], axis=1)
    return [replace(window, taught=own) for window, own in zip(windows, taught, strict=True)]


@torch.inference_mode()
def _logits_of(windows: Sequence[AnsweredWindow], model: BertForQuestionAnswering) -> list[np.ndarray]:
    nn.Module.eval(model)
    half = half_precision()
    found: dict[int, np.ndarray] = {}
    by_length = sorted(range(len(windows)), key=lambda i: len(windows[i]))
    for first in range(0, len(windows), _BATCH):
        indices = by_length[first : first + _BATCH]
        batch = {name: tensor.to(model.device) for name, tensor in collate([windows[i] for i in indices]).items()}
        with torch.autocast(model.device.type, half, enabled=half is not None):
            output = model(**inputs_of(batch))
        logits = torch.stack([output.start_logits, output.end_logits], 1).half().cpu().numpy()
        found.update({i: own[:, : len(windows[i])] for i, own in zip(indices, logits, strict=True)})
    return [found[i] for i in range(len(windows))]
