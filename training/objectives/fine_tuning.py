"""Ordinary fine-tuning."""

from __future__ import annotations

from torch import Tensor

from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import Objective, TrainingStep


class FineTuning(Objective):
    """Minimises the loss against the labels."""

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """One part, `answers`."""
        return {"answers": self.task.loss(self.model(**inputs_of(batch)), batch)}
