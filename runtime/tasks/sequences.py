"""Token sequences as a model reads them: stacked to batches, and how many tokens each layer kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class TokenSequence(Protocol):
    """One input of a model, special tokens included, without padding. It fits into the model."""

    @property
    def input_ids(self) -> Sequence[int]:
        """The ids of all tokens."""

    @property
    def token_type_ids(self) -> Sequence[int]:
        """0 or 1 for each token: its segment."""

    def __len__(self) -> int:
        """Number of tokens."""


def stack(sequences: Sequence[TokenSequence], *, multiple: int = 1) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs of a model for a batch, int64 [B, L] by name, padded with zeros; L is a multiple of `multiple`."""
    shape = (len(sequences), -(-max(map(len, sequences)) // multiple) * multiple)
    input_ids, attention_mask, token_type_ids = (np.zeros(shape, np.int64) for _ in range(3))
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = sequence.input_ids
        attention_mask[row, : len(sequence)] = 1
        token_type_ids[row, : len(sequence)] = sequence.token_type_ids
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


def kept_by_layer(kept: Mapping[int, int], length: int, num_layers: int) -> tuple[int, ...]:
    """For each layer, how many tokens of a sequence it passed on.

    Args:
        kept: The same for the layers that may drop tokens.
        length: Tokens of the sequence.
        num_layers: Layers of the encoder.
    """
    by_layer = []
    for layer in range(num_layers):
        length = kept.get(layer, length)  # a layer that drops nothing passes on what entered it
        by_layer.append(length)
    return tuple(by_layer)
