"""Training of classifiers of texts and pairs, and of rerankers."""

from __future__ import annotations

from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig

from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels
from dynamic_tinybert.training.batches import TokenBatch
from dynamic_tinybert.training.tasks.task import Outputs, TrainingTask

from . import losses
from .reader import TextReader


class ClassificationTraining:
    """Losses of logits; see `TrainingTask`. The form of targets is that of `losses.targets_of_logits`."""

    pipeline_tag = "text-classification"
    examples = "examples"

    def loss(self, outputs: Outputs, batch: TokenBatch) -> Tensor:
        """The loss against the labels."""
        targets = losses.targets_of_labels(batch, outputs["logits"].shape[1])
        return losses.loss_against(outputs, targets, batch)

    def soft_loss(self, outputs: Outputs, targets: Tensor, batch: TokenBatch) -> Tensor:
        """The same loss against other targets."""
        return losses.loss_against(outputs, targets, batch)

    def probabilities(self, outputs: Outputs, batch: TokenBatch) -> Tensor:
        """What the logits say."""
        return losses.targets_of_logits(outputs["logits"], batch)

    def soft_labels(self, batch: TokenBatch) -> Tensor:
        """The mean of what the labels and the teacher's logits say."""
        logits = batch["teacher_logits"]
        labels = losses.targets_of_labels(batch, logits.shape[1])
        return (labels + losses.targets_of_logits(logits, batch)) / 2

    def teacher_logits(self, outputs: Outputs) -> Tensor:
        """The logits, `[B, K]`."""
        return outputs["logits"]

    def outputs_of(self, targets: Tensor) -> Outputs:
        """Never called: scorers learn from the attention of [CLS], which targets do not give (`ModelTask`)."""
        raise NotImplementedError("objectives with scorers are refused for this task")

    def reader(
        self, tokenizer: Tokenizer, config: PretrainedConfig, max_length: int, max_seq_len: int | None
    ) -> TextReader:
        """A reader of labelled texts and of rankings; a row is a text or a pair, cut to `max_seq_len` tokens."""
        by_index = sorted((config.id2label or {}).items(), key=lambda item: int(item[0]))
        names = tuple(str(name) for _, name in by_index)
        return TextReader(tokenizer, Labels(names, config.problem_type), max_length, max_seq_len)


TASK: TrainingTask = ClassificationTraining()
