"""Run a model over many inputs, in batches of inputs of nearly the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

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
    for indices in batches_of(lengths, batch_size):
        output = run(indices)
        longest = max(lengths[i] for i in indices)  # fillers have this position
        kept = {layer: (positions < longest).sum(1) for layer, positions in output.kept_positions.items()}
        for row, i in enumerate(indices):
            results[i] = row_of(output, row, {layer: int(counts[row]) for layer, counts in kept.items()})
    return [results[i] for i in range(len(lengths))]


def batches_of(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of the inputs to run together: those that the model pads to the same length."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, members in groupby(by_length, key=lambda i: -(-lengths[i] // LENGTH_MULTIPLE)):
        alike = list(members)
        for first in range(0, len(alike), batch_size):
            yield alike[first : first + batch_size]
