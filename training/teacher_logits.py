"""Logits of the model as it was before the training, which serves as its own teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.precision import half_precision
from dynamic_tinybert.runtime.common.publish import writing

from .batches import TrainingRow, collate, inputs_of
from .tasks import training_task_of

TEACHER_LOGITS = "teacher_logits.npz"
"""Name of the file of the logits in the work folder of a training."""

_BATCH_SIZE = 32


def with_teacher_logits(
    rows: Sequence[TrainingRow], model: BertPreTrainedModel, file: Path, say: Callable[[str], None]
) -> list[TrainingRow]:
    """Add to each row the logits that a model gives for it.

    Args:
        rows: The rows.
        model: The model, with its weights from before the training.
        file: File of the logits. If it exists, it is read and the model is not run.
        say: Called with a line of text before the model is run, which takes a long time.

    Raises:
        StorageError: The file could not be written.
    """
    if not file.exists():
        say(f"Computing the teacher logits of {len(rows)} windows")
        _save(_logits_of(rows, model), file)
    return [replace(row, teacher_logits=logits) for row, logits in zip(rows, _load(file), strict=True)]


@torch.inference_mode()
def _logits_of(rows: Sequence[TrainingRow], model: BertPreTrainedModel) -> list[npt.NDArray[np.float16]]:
    nn.Module.eval(model)
    task, half = training_task_of(model), half_precision()
    found: dict[int, npt.NDArray[np.float16]] = {}
    # The longest first: then the tensors of each batch fit into what those before have freed.
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    for first in range(0, len(rows), _BATCH_SIZE):
        indices = by_length[first : first + _BATCH_SIZE]
        batch = {name: tensor.to(model.device) for name, tensor in collate([rows[i] for i in indices]).items()}
        with torch.autocast(model.device.type, half, enabled=half is not None):
            outputs = model(**inputs_of(batch))
        logits = task.teacher_logits(outputs).half().cpu().numpy()
        per_token = logits.ndim == 3
        found.update({i: own[: len(rows[i])] if per_token else own for i, own in zip(indices, logits, strict=True)})
    return [found[i] for i in range(len(rows))]


def _save(logits: Sequence[npt.NDArray[np.float16]], file: Path) -> None:
    """Write all values as one array, and the shape of each row's part; the file appears complete or not at all."""
    partial = file.with_name(f"partial-{file.name}")
    with writing(file):
        shapes = np.array([own.shape for own in logits])
        np.savez(partial, logits=np.concatenate([own.ravel() for own in logits]), shapes=shapes)
        partial.replace(file)


def _load(file: Path) -> list[npt.NDArray[np.float16]]:
    with np.load(file) as saved:
        shapes = saved["shapes"]
        parts = np.split(saved["logits"], np.cumsum(shapes.prod(1))[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
