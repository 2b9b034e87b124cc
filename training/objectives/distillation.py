"""TinyBERT's distillation: of intermediate layers, then of predictions."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from transformers import BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer

from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.training.batches import TokenBatch, inputs_of
from dynamic_tinybert.training.depth import mapped_layers

from .base import Objective, TrainingStep, Unregistered


class Distillation(Objective):
    """A student and its teacher, which is frozen.

    Args:
        model: The student.
        teacher: A model with the same vocabulary.
    """

    def __init__(self, model: BertPreTrainedModel, teacher: BertPreTrainedModel) -> None:
        super().__init__(model)
        self._teacher = Unregistered(teacher.requires_grad_(False))

    def teacher_for(self, batch: TokenBatch) -> BertPreTrainedModel:
        """The teacher, on the device of the batch."""
        teacher = self._teacher.module
        nn.Module.to(teacher, batch["input_ids"].device)
        return teacher


class PredictionDistillation(Distillation):
    """Loss against the teacher's probabilities."""

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """One part, `answers`."""
        inputs = inputs_of(batch)
        outputs, targets = self.model(**inputs), self.task.probabilities(self.teacher_for(batch)(**inputs), batch)
        return {"answers": self.task.soft_loss(outputs, targets, batch)}


class LayerDistillation(Distillation):
    """Squared differences of embeddings, states and attention scores between each student layer and a teacher layer.

    If the widths differ, a linear projection of the student's states to the teacher's width is learnt with them. If the
    numbers of heads differ, attention scores are averaged over heads.
    """

    def __init__(self, model: BertPreTrainedModel, teacher: BertPreTrainedModel) -> None:
        super().__init__(model, teacher)
        width, teacher_width = model.config.hidden_size, teacher.config.hidden_size
        self.projection = nn.Identity() if width == teacher_width else nn.Linear(width, teacher_width)

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """Parts `embeddings`, `states` and `attention`; the last two are means over the student's layers."""
        inputs, teacher = inputs_of(batch), self.teacher_for(batch)
        states = self.model(**inputs, output_hidden_states=True).hidden_states
        teacher_states = teacher(**inputs, output_hidden_states=True).hidden_states
        layers, teacher_layers = (
            cast("list[BertLayer]", encoder_of(model).encoder.layer) for model in (self.model, teacher)
        )
        mapped = mapped_layers(len(teacher_layers), len(layers))
        real = batch["attention_mask"].to(states[0])
        pairs = (real[:, None, :, None] * real[:, None, None]).bool()
        differences = {
            "embeddings": [_difference(self.projection(states[0]), teacher_states[0], real[..., None].bool())],
            "states": [
                _difference(self.projection(states[i + 1]), teacher_states[j + 1], real[..., None].bool())
                for i, j in enumerate(mapped)
            ],
            "attention": [
                _difference(
                    *_same_heads(_scores(layers[i], states[i]), _scores(teacher_layers[j], teacher_states[j])), pairs
                )
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


def _same_heads(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Attention scores of both with the same number of heads: the mean over heads, if the numbers differ."""
    if student.shape[1] == teacher.shape[1]:
        return student, teacher
    return student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)


def _difference(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean squared difference of the elements at which `counted` is true, after broadcasting it."""
    counted = counted.expand_as(student)
    return ((student.float() - teacher.float()) ** 2)[counted].mean()
