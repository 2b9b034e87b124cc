"""Losses of start and end logits, and their target probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dynamic_tinybert.modeling.reference import MASKED
from dynamic_tinybert.training.batches import TokenBatch
from dynamic_tinybert.training.tasks.task import Outputs


def answer_loss(outputs: Outputs, batch: TokenBatch) -> Tensor:
    """Cross-entropy with the labelled start and end, averaged over both and over the batch."""
    start, end = _logits_of_real(outputs, batch)
    return (
        functional.cross_entropy(start, batch["start_positions"])
        + functional.cross_entropy(end, batch["end_positions"])
    ) / 2


def soft_answer_loss(outputs: Outputs, targets: Tensor, batch: TokenBatch) -> Tensor:
    """Cross-entropy with probabilities `[B, L, 2]` of the start and the end, averaged over both and over the batch."""
    losses = [
        functional.cross_entropy(logits, probabilities)
        for logits, probabilities in zip(_logits_of_real(outputs, batch), targets.unbind(-1), strict=True)
    ]
    return torch.stack(losses).mean()


def answer_probabilities(outputs: Outputs, batch: TokenBatch) -> Tensor:
    """Probabilities of the start and the end, `[B, L, 2]`, without a gradient; 0 at padding."""
    return torch.stack([logits.detach().softmax(1) for logits in _logits_of_real(outputs, batch)], -1)


def soft_labels(batch: TokenBatch) -> Tensor:
    """The mean of the labels and of the teacher's probabilities of the start and the end, `[B, L, 2]`."""
    teacher = batch["teacher_logits"].softmax(1)
    positions = torch.stack([batch["start_positions"], batch["end_positions"]], 1)
    return (teacher + functional.one_hot(positions, teacher.shape[1]).mT) / 2


def _logits_of_real(outputs: Outputs, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Start and end logits `[B, L]` in FP32, in which padding has no probability."""
    padding = batch["attention_mask"] == 0
    start, end = (outputs[name].float().masked_fill(padding, MASKED) for name in ("start_logits", "end_logits"))
    return start, end
