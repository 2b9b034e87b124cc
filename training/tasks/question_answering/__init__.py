"""Training of extractive question answering."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig

from dynamic_tinybert.runtime.tasks.question_answering.measure import QuestionAnsweringMeasure
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.training.batches import TokenBatch
from dynamic_tinybert.training.tasks.task import Outputs, TrainingTask

from . import losses
from .reader import QuestionReader


class QuestionAnsweringTraining:
    """Losses of the start and end of answers; see `TrainingTask`. Targets are probabilities of both, `[B, L, 2]`."""

    pipeline_tag = "question-answering"
    examples = QuestionAnsweringMeasure.examples

    def loss(self, outputs: Outputs, batch: TokenBatch) -> Tensor:
        """Cross-entropy with the labelled start and end."""
        return losses.answer_loss(outputs, batch)

    def soft_loss(self, outputs: Outputs, targets: Tensor, batch: TokenBatch) -> Tensor:
        """Cross-entropy with probabilities of the start and the end."""
        return losses.soft_answer_loss(outputs, targets, batch)

    def probabilities(self, outputs: Outputs, batch: TokenBatch) -> Tensor:
        """Probabilities of the start and the end over the real tokens."""
        return losses.answer_probabilities(outputs, batch)

    def soft_labels(self, batch: TokenBatch) -> Tensor:
        """The mean of the labels and of the teacher's probabilities."""
        return losses.soft_labels(batch)

    def teacher_logits(self, outputs: Outputs) -> Tensor:
        """Start and end logits, `[B, L, 2]`."""
        return torch.stack([outputs["start_logits"], outputs["end_logits"]], -1)

    def outputs_of(self, targets: Tensor) -> Outputs:
        """Logarithms of the probabilities, which equal the logits up to a constant."""
        start, end = targets.clamp(min=torch.finfo(targets.dtype).tiny).log().unbind(-1)
        return {"start_logits": start, "end_logits": end}

    def reader(
        self, tokenizer: Tokenizer, config: PretrainedConfig, max_length: int, max_seq_len: int | None
    ) -> QuestionReader:
        """A reader of questions; a row is a window, by default of at most 384 tokens."""
        return QuestionReader(Windowing(tokenizer, max_length, max_seq_len))


TASK: TrainingTask = QuestionAnsweringTraining()
