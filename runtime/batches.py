"""Run a model over many inputs, in batches of inputs of nearly the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .encoder.compilation import LENGTH_MULTIPLE
from .tasks.task import ModelOutput

Output = TypeVar("Output", bound=ModelOutput)
Row = TypeVar("Row")


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
        lengths: Tokens of each input.
        row_of: Makes the result for one input of a batch's output, of the input's row there, and of how many of its
            tokens each layer passed on that may drop some.
        batch_size: Inputs to run at once.

    Returns:
        The results in the inputs' order.
    """
    results: dict[int, Row] = {}
    for indices in _batches(lengths, batch_size):
        output = run(indices)
        longest = max(lengths[i] for i in indices)  # fillers have this position
        kept = {layer: (positions < longest).sum(1) for layer, positions in output.kept_positions.items()}
        for row, i in enumerate(indices):
            results[i] = row_of(output, row, {layer: int(counts[row]) for layer, counts in kept.items()})
    return [results[i] for i in range(len(lengths))]


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of the inputs to run together: those that the model pads to the same length."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, members in groupby(by_length, key=lambda i: -(-lengths[i] // LENGTH_MULTIPLE)):
        alike = list(members)
        for first in range(0, len(alike), batch_size):
            yield alike[first : first + batch_size]


def kept_by_layer(kept: Mapping[int, int], length: int, num_layers: int) -> tuple[int, ...]:
    """How many tokens went on from each layer.

    Args:
        kept: Tokens that layers passed on, for those that may drop some.
        length: Tokens of the input.
        num_layers: Layers of the model.
    """
    by_layer = []
    for layer in range(num_layers):
        length = kept.get(layer, length)  # a layer that drops nothing passes on what entered it
        by_layer.append(length)
    return tuple(by_layer)


def stack_inputs(
    ids: Sequence[Sequence[int]], second_segments: Sequence[int], *, multiple: int = 1
) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs of a model for a batch of sequences, int64 [B, L] by name, padded with zeros.

    Args:
        ids: Token ids of each sequence.
        second_segments: Where the second segment of each sequence begins, whose token types are 1; its length if it
            has none.
        multiple: L is a multiple of this.
    """
    shape = (len(ids), -(-max(map(len, ids)) // multiple) * multiple)
    input_ids, attention_mask, token_type_ids = (np.zeros(shape, np.int64) for _ in range(3))
    for row, (own, second_segment) in enumerate(zip(ids, second_segments, strict=True)):
        input_ids[row, : len(own)] = own
        attention_mask[row, : len(own)] = 1
        token_type_ids[row, second_segment : len(own)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
