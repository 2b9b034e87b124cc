"""Token sequences as inputs of a model: stack them into batches, and run batches of nearly the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .encoder.compilation import LENGTH_MULTIPLE
from .tasks.task import ModelOutput

Output = TypeVar("Output", bound=ModelOutput)
Row = TypeVar("Row")


class TokenSequence(Protocol):
    """One input of a model, with special tokens and without padding, at most as long as the model allows."""

    @property
    def input_ids(self) -> Sequence[int]:
        """The ids of all tokens."""

    @property
    def token_type_ids(self) -> Sequence[int]:
        """The segment of each token, 0 or 1."""

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


def run_batches(
    run: Callable[[list[int]], Output],
    lengths: Sequence[int],
    row_of: Callable[[Output, int, Mapping[int, int]], Row],
    *,
    batch_size: int,
) -> list[Row]:
    """Run all inputs, at most `batch_size` at once.

    Args:
        run: Runs the model on a batch of inputs, given by their indices, padded to the longest of them.
        lengths: Number of tokens of each input.
        row_of: Makes the result for one input. It is called with the batch's output, the input's row in it and, for
            each layer that may drop tokens, the number of the input's tokens that the layer passed on.
        batch_size: Maximum number of inputs to run at once.

    Returns:
        The results in the inputs' order.
    """
    results: dict[int, Row] = {}
    for indices in batches_of(lengths, batch_size):
        rows = rows_of(run(indices), [lengths[i] for i in indices], row_of)
        results.update(zip(indices, rows, strict=True))
    return [results[i] for i in range(len(lengths))]


def rows_of(
    output: Output, lengths: Sequence[int], row_of: Callable[[Output, int, Mapping[int, int]], Row]
) -> list[Row]:
    """The results for the inputs of a batch, by the function of `run_batches`, from its output and their lengths."""
    longest = max(lengths)  # fillers have this position
    kept = {layer: (positions < longest).sum(1) for layer, positions in output.kept_positions.items()}
    return [
        row_of(output, row, {layer: int(counts[row]) for layer, counts in kept.items()}) for row in range(len(lengths))
    ]


def padded_length(tokens: int) -> int:
    """The length to which the model pads an input."""
    return -(-tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def batches_of(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of the inputs to run together: those that the model pads to the same length."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, members in groupby(by_length, key=lambda i: padded_length(lengths[i])):
        alike = list(members)
        for first in range(0, len(alike), batch_size):
            yield alike[first : first + batch_size]


def kept_by_layer(kept: Mapping[int, int], length: int, num_layers: int) -> tuple[int, ...]:
    """For each layer, how many tokens of a sequence it passed on.

    Args:
        kept: The number of tokens passed on, for each layer that may drop tokens.
        length: Number of tokens of the sequence.
        num_layers: Number of layers of the encoder.
    """
    by_layer = []
    for layer in range(num_layers):
        length = kept.get(layer, length)  # a layer that drops nothing passes on what entered it
        by_layer.append(length)
    return tuple(by_layer)
