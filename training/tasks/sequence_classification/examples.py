"""Examples of a classifier's training: tokenized texts, pairs, and queries with their documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.sequence_classification.example import Label
from dynamic_tinybert.runtime.tasks.sequence_classification.tokens import TextTokens


@dataclass(frozen=True, slots=True)
class TextInput:
    """The tokens of one input, a `TokenSequence` that is small enough to keep millions of them.

    Attributes:
        ids: Token ids, int32 `[N]`.
        second_segment: Index of the first token of the second text; N if there is none.
    """

    ids: npt.NDArray[np.int32]
    second_segment: int

    @classmethod
    def of(cls, tokens: TextTokens) -> TextInput:
        """Take what the model needs of tokens."""
        types = tokens.token_type_ids
        return cls(np.array(tokens.input_ids, np.int32), types.index(1) if 1 in types else len(types))

    @property
    def input_ids(self) -> list[int]:
        """The ids of all tokens."""
        ids: list[int] = self.ids.tolist()
        return ids

    @property
    def token_type_ids(self) -> list[int]:
        """0 for the first text, 1 for the second."""
        return [int(i >= self.second_segment) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text or a pair with its label.

    Attributes:
        inputs: Its one input.
        label: The label.
    """

    inputs: Sequence[TextInput]
    label: Label


@dataclass(frozen=True, slots=True)
class GradedDocuments:
    """A query with its documents.

    Attributes:
        inputs: An input for each document.
        grades: How relevant each document is, 0 to 1; at least one is above 0.
    """

    inputs: Sequence[TextInput]
    grades: Sequence[float]


TrainingExample = LabelledText | GradedDocuments
