"""TinyBERT's distillation: first what is between the layers, then the answers."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from transformers import BertForQuestionAnswering
from transformers.models.bert.modeling_bert import BertLayer

from dynamic_tinybert.training.batches import Batch, inputs_of
from dynamic_tinybert.training.depth import mapped_layers

from .answer_losses import soft_answer_loss
from .base import Moment, Objective


class Distillation(Objective):
    """A student and its teacher, which stays as it is.

    Args:
        model: The student.
        teacher: A model with the same vocabulary.
    """

    def __init__(self, model: BertForQuestionAnswering, teacher: BertForQuestionAnswering) -> None:
        super().__init__(model)
        self._teacher = (teacher.requires_grad_(False),)  # in a tuple, so that it is neither trained nor saved

    def teacher_on(self, batch: Batch) -> BertForQuestionAnswering:
        """The teacher, where the batch is."""
        (teacher,) = self._teacher
        nn.Module.to(teacher, batch["input_ids"].device)
        return teacher


class AnswerDistillation(Distillation):
    """Soft cross-entropy on the teacher's start and end."""

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """One part, `answers`."""
        inputs = inputs_of(batch)
        return {"answers": soft_answer_loss(self.model(**inputs), self.teacher_on(batch)(**inputs), batch)}


class LayerDistillation(Distillation):
    """Squared differences of embeddings, of states and of attention scores between layers that stand for each other.

    States of another width are projected to the teacher's, which is learnt with the student. With another number of
    heads, attention is compared in the mean over them.
    """

    def __init__(self, model: BertForQuestionAnswering, teacher: BertForQuestionAnswering) -> None:
        super().__init__(model, teacher)
        own, taught = model.config.hidden_size, teacher.config.hidden_size
        self.projection = nn.Identity() if own == taught else nn.Linear(own, taught)

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """Parts `embeddings`, `states` and `attention`, the latter two being means over the student's layers."""
        inputs, teacher = inputs_of(batch), self.teacher_on(batch)
        states = self.model(**inputs, output_hidden_states=True).hidden_states
        taught = teacher(**inputs, output_hidden_states=True).hidden_states
        layers, teachers = (cast("list[BertLayer]", model.bert.encoder.layer) for model in (self.model, teacher))
        mapped = mapped_layers(len(teachers), len(layers))
        real = batch["attention_mask"].to(states[0])
        pairs = (real[:, None, :, None] * real[:, None, None]).bool()
        differences = {
            "embeddings": [_difference(self.projection(states[0]), taught[0], real[..., None].bool())],
            "states": [
                _difference(self.projection(states[i + 1]), taught[j + 1], real[..., None].bool())
                for i, j in enumerate(mapped)
            ],
            "attention": [
                _difference(*_same_heads(_scores(layers[i], states[i]), _scores(teachers[j], taught[j])), pairs)
                for i, j in enumerate(mapped)
            ],
        }
        return {name: torch.stack(found).mean() for name, found in differences.items()}


def _scores(layer: BertLayer, state: Tensor) -> Tensor:
    """Attention scores `[B, heads, L, L]` before the softmax."""
    attention = layer.attention.self
    query, key = (
        part(state).unflatten(2, (attention.num_attention_heads, -1)).transpose(1, 2)
        for part in (attention.query, attention.key)
    )
    scores: Tensor = query @ key.mT / math.sqrt(query.shape[3])
    return scores


def _same_heads(own: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
    if own.shape[1] == taught.shape[1]:
        return own, taught
    return own.mean(1, keepdim=True), taught.mean(1, keepdim=True)


def _difference(own: Tensor, taught: Tensor, counted: Tensor) -> Tensor:
    """Mean squared difference where `counted`, which is broadcast."""
    counted = counted.expand_as(own)
    return ((own.float() - taught.float()) ** 2)[counted].mean()
