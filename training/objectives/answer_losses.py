"""Losses of start and end logits."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dynamic_tinybert.modeling.reference import MASKED
from dynamic_tinybert.training.batches import Batch


class AnswerLogits(Protocol):
    """What models of question answering give, `[B, L]` each."""

    @property
    def start_logits(self) -> Tensor:
        """Of the answer's first token."""

    @property
    def end_logits(self) -> Tensor:
        """Of its last token."""


def answer_loss(output: AnswerLogits, batch: Batch) -> Tensor:
    """Cross-entropy of the start and the end that the data names, the mean of both over the batch."""
    return (
        functional.cross_entropy(_over_real(output.start_logits, batch), batch["start_positions"])
        + functional.cross_entropy(_over_real(output.end_logits, batch), batch["end_positions"])
    ) / 2


def soft_answer_loss(output: AnswerLogits, teacher: AnswerLogits, batch: Batch) -> Tensor:
    """Cross-entropy of the start and end probabilities of a teacher, which learns nothing from it."""
    taught = (_over_real(own, batch).detach().softmax(1) for own in (teacher.start_logits, teacher.end_logits))
    return belief_loss(output, torch.stack(list(taught), -1), batch)


def belief_loss(output: AnswerLogits, belief: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of given probabilities of the start and the end `[B, L, 2]`."""
    losses = [
        functional.cross_entropy(_over_real(own, batch), wanted)
        for own, wanted in zip((output.start_logits, output.end_logits), belief.unbind(-1), strict=True)
    ]
    return torch.stack(losses).mean()


def _over_real(logits: Tensor, batch: Batch) -> Tensor:
    return logits.float().masked_fill(batch["attention_mask"] == 0, MASKED)
