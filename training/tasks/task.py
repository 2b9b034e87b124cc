"""What training needs of a task: losses, soft labels, training rows, and scores of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig

from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import ReadExamples
from dynamic_tinybert.training.batches import TokenBatch, TrainingRow

E = TypeVar("E")
"""An example of a task; only the task itself knows its type."""

Outputs = Mapping[str, Tensor]
"""Outputs of a task's head by name, of the plain model or of `ReferenceModel`."""


class TrainingTask(Protocol):
    """Losses and data of one task. Its head is described by the `ModelTask` of the same name.

    Targets are probabilities of labels, as a tensor whose form only the task knows.
    """

    @property
    def pipeline_tag(self) -> str:
        """The Hub's name of the task, for model cards."""

    @property
    def examples(self) -> str:
        """What examples of the task are called, in the plural."""

    def loss(self, outputs: Outputs, batch: TokenBatch) -> Tensor:
        """Loss against the labels of the batch."""

    def soft_loss(self, outputs: Outputs, targets: Tensor, batch: TokenBatch) -> Tensor:
        """Loss against target probabilities, which receive no gradient."""

    def probabilities(self, outputs: Outputs, batch: TokenBatch) -> Tensor:
        """The probabilities that a model's outputs give, as targets for another model."""

    def soft_labels(self, batch: TokenBatch) -> Tensor:
        """The mean of the labels, as probabilities, and of the probabilities that the batch's `teacher_logits` give."""

    def teacher_logits(self, outputs: Outputs) -> Tensor:
        """The teacher's logits that rows store: `[B, L, K]` if the task labels tokens, else `[B, K]`."""

    def outputs_of(self, targets: Tensor) -> Outputs:
        """Outputs of the head that would give these probabilities, for the targets of scorers; see `ModelTask`."""

    def reader(
        self, tokenizer: Tokenizer, config: PretrainedConfig, max_length: int, max_seq_len: int | None
    ) -> Reader[Any]:
        """A reader of examples.

        Args:
            tokenizer: The tokenizer of the model.
            config: The configuration of the model, with its labels.
            max_length: Longest input of the model in tokens.
            max_seq_len: Largest number of tokens in a row; None for the task's default.

        Raises:
            InvalidInputError: `max_seq_len` is more than `max_length` or less than 1.
        """


class Reader(Protocol[E]):
    """Reads the files of a training, and makes model inputs of their examples."""

    def read_training(self, path: str | Path, limit: int | None, *, strict: bool) -> ReadExamples[E]:
        """Read the examples of a file that can be trained on.

        Args:
            path: The file.
            limit: Read only the first `limit` examples.
            strict: Refuse the file if anything is wrong with an example.

        Raises:
            DataError: The file cannot be read, no example can be trained on, or `strict` refuses one.
        """

    def read_scored(self, path: str | Path, limit: int | None, *, strict: bool) -> ReadExamples[E]:
        """Read the examples of a file that models can be measured on.

        Args:
            path: The file.
            limit: Read only the first `limit` examples.
            strict: Refuse the file if anything is wrong with an example.

        Raises:
            DataError: The file cannot be read, no example can be scored, or `strict` refuses one.
        """

    def rows(self, examples: Sequence[E]) -> list[TrainingRow]:
        """The training rows of examples, at least one.

        Raises:
            DataError: The model can read none of the examples.
        """

    def scored_inputs(self, scored: Sequence[E]) -> ScoredInputs:
        """Turn examples into inputs that models are measured on.

        Raises:
            DataError: The model can read none of the examples.
        """

    def inputs(self, examples: Sequence[E]) -> Sequence[TokenSequence]:
        """The model inputs of examples; examples that the model cannot read have none."""


class ScoredInputs(Protocol):
    """Examples that models are measured on."""

    @property
    def metric(self) -> str:
        """The name of the metric."""

    def scores(self, reference: ReferenceModel, length_config: LengthConfig) -> list[ExampleScore]:
        """Run a model on the examples at a length configuration, and score each of them."""


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """The score and the cost of a model on one example.

    Attributes:
        score: The task's metric, in points of 100.
        kept: For each model input of the example: its number of tokens, and how many of them each layer passed on.
    """

    score: float
    kept: Sequence[tuple[int, Sequence[int]]]
