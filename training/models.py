"""The models of a training: the one that is trained and, for distillation, its teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.checkpoint import Checkpoint, load_checkpoint
from dynamic_tinybert.modeling.new_head import NewHead
from dynamic_tinybert.runtime.common.errors import CheckpointError

from .depth import with_fewer_layers


@dataclass(frozen=True)
class Models:
    """The models of a training.

    Attributes:
        checkpoint: The checkpoint that the trained model is made from.
        trained: The model to train: that of the checkpoint, or a copy with fewer layers.
        teacher: The checkpoint to distil from, if there is one.
    """

    checkpoint: Checkpoint
    trained: BertPreTrainedModel
    teacher: Checkpoint | None

    @property
    def all(self) -> Sequence[BertPreTrainedModel]:
        """The trained model and the teacher, if there is one."""
        return [self.trained] if self.teacher is None else [self.trained, self.teacher.model]

    @property
    def max_length(self) -> int:
        """Largest number of tokens that all of these models can read."""
        return min(int(model.config.max_position_embeddings) for model in self.all)


def load_models(
    model: str | Path,
    teacher: str | Path | None,
    *,
    num_layers: int | None,
    local_files_only: bool,
    new_head: NewHead | None = None,
) -> Models:
    """Load the checkpoint to train and the one to distil from.

    Args:
        model: Hub id or folder of the checkpoint to train.
        teacher: Hub id or folder of the checkpoint to distil from, or None.
        num_layers: Number of layers to keep, evenly spaced; None for all.
        local_files_only: Never use the network.
        new_head: Give the model to train this head instead of its own.

    Raises:
        CheckpointError: A checkpoint is missing or not supported, or they have different vocabularies or labels.
        InvalidInputError: The model has fewer layers than `num_layers`.
    """
    checkpoint = load_checkpoint(model, local_files_only=local_files_only, new_head=new_head)
    trained = checkpoint.model if num_layers is None else with_fewer_layers(checkpoint.model, num_layers)
    if teacher is None:
        return Models(checkpoint, trained, None)
    teacher_checkpoint = load_checkpoint(teacher, local_files_only=local_files_only)
    check_heads(checkpoint, teacher_checkpoint)
    check_vocabularies(checkpoint, teacher_checkpoint)
    return Models(checkpoint, trained, teacher_checkpoint)


def check_heads(student: Checkpoint, teacher: Checkpoint) -> None:
    """Check that two checkpoints are for the same task and have as many outputs.

    Raises:
        CheckpointError: They are not.
    """
    own, others = ((loaded.task.name, loaded.model.config.num_labels) for loaded in (student, teacher))
    if own != others:
        raise CheckpointError(
            f"{teacher.source} cannot teach {student.source}: it is for {others[0]} with {others[1]} outputs, and the "
            f"student for {own[0]} with {own[1]}; distil from a teacher of the same kind"
        )


def check_vocabularies(student: Checkpoint, teacher: Checkpoint) -> None:
    """Check that two checkpoints have the same vocabulary.

    Raises:
        CheckpointError: Their vocabularies differ.
    """
    own, others = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if own != others:
        token = min(token for token, _ in own.items() ^ others.items())
        raise CheckpointError(
            f"{teacher.source} cannot teach {student.source}: their vocabularies differ, the token {token!r} has id "
            f"{others.get(token)} there and {own.get(token)} here; distil between checkpoints with the same vocabulary"
        )


def set_dropout(model: BertPreTrainedModel, probability: float) -> None:
    """Set the dropout of a model's modules, but not of its configuration, which the new checkpoint inherits."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def digest_of_weights(model: BertPreTrainedModel) -> str:
    """SHA-256 of the weights, to check that a training is resumed with the same model."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
