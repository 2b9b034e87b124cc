"""Deep supervision: the states of [CLS] after every layer learn to tell what the last layer says."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import Objective, TrainingStep


class DeepSupervision(Objective):
    """Fine-tunes a classifier or a reranker, and with it a linear head on the state of [CLS] after each earlier layer.

    Each head learns the labels and what the model itself answers, in equal parts (Lee et al. 2015,
    https://arxiv.org/abs/1409.5185; Zhang et al. 2019, https://arxiv.org/abs/1905.08094). The heads are not stored:
    `dynamic-tinybert calibrate` on rankings fits its own to the exported model, and drops documents by them.

    Args:
        model: The model.

    Raises:
        InvalidInputError: The model labels tokens, so that it has no early exit, or it has one layer only.
    """

    def __init__(self, model: BertPreTrainedModel) -> None:
        super().__init__(model)
        if not task_of(model).first_token_only:
            raise InvalidInputError(
                "the objective deep-supervision is for classification and ranking, where documents can leave early; "
                f"this model is for {task_of(model).name}"
            )
        config = model.config
        if config.num_hidden_layers < 2:
            raise InvalidInputError("the objective deep-supervision needs a model with at least two layers")
        self.early_heads = nn.ModuleList(
            nn.Linear(config.hidden_size, config.num_labels) for _ in range(config.num_hidden_layers - 1)
        )

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """Parts `answers` and `early`, the latter a mean over the heads."""
        outputs = self.model(**inputs_of(batch), output_hidden_states=True)
        targets = self.task.probabilities(outputs, batch)
        losses = []
        for head, states in zip(self.early_heads, outputs.hidden_states[1:-1], strict=True):
            early = {"logits": head(states[:, 0])}
            losses.append((self.task.loss(early, batch) + self.task.soft_loss(early, targets, batch)) / 2)
        return {"answers": self.task.loss(outputs, batch), "early": torch.stack(losses).mean()}
