"""Which windows a step trains on, and how they become tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from .data import AnsweredWindow

Batch = Mapping[str, Tensor]
"""Int64: input_ids, attention_mask and token_type_ids [B, L], start_positions and end_positions [B]. Maybe, in float32,
taught_logits [B, L, 2], of the start and the end."""

_POOL = 50  # batches whose windows are sorted by length; more would make batches too much alike from epoch to epoch


def plan_batches(
    lengths: Sequence[int], batch_size: int, *, epochs: float, max_steps: int | None, seed: int
) -> list[list[int]]:
    """The windows of every step of a training, in order: each epoch shuffled anew, like lengths together.

    It depends on the arguments alone, so that a training that goes on sees what it would have seen.

    Args:
        lengths: Tokens of each window.
        batch_size: Windows of a step.
        epochs: How often each window is seen; a part of an epoch is cut off its end.
        max_steps: Steps, instead of `epochs`.
        seed: Of the order.
    """
    in_epoch = math.ceil(len(lengths) / batch_size)
    steps = math.ceil(epochs * in_epoch) if max_steps is None else max_steps
    plan: list[list[int]] = []
    for epoch in range(math.ceil(steps / in_epoch)):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths))
        pools = np.split(order, range(_POOL * batch_size, len(order), _POOL * batch_size))
        by_length = [window for pool in pools for window in sorted(pool.tolist(), key=lengths.__getitem__)]
        batches = [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
        plan += [batches[i] for i in random.permutation(len(batches))]
    return plan[:steps]


def collate(windows: Sequence[AnsweredWindow]) -> dict[str, Tensor]:
    """A batch of windows, padded to the longest of them; with `taught_logits` if all of them hold some."""
    shape = len(windows), max(map(len, windows))
    input_ids, attention_mask, token_type_ids = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for row, window in enumerate(windows):
        input_ids[row, : len(window)] = torch.from_numpy(window.ids)
        attention_mask[row, : len(window)] = 1
        token_type_ids[row, window.context_start : len(window)] = 1
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
        "start_positions": torch.tensor([window.start for window in windows]),
        "end_positions": torch.tensor([window.end for window in windows]),
    }
    taught = [torch.from_numpy(window.taught.T).float() for window in windows if window.taught is not None]
    if len(taught) == len(windows):
        batch["taught_logits"] = pad_sequence(taught, batch_first=True, padding_value=-torch.inf)
    return batch


def belief_of(batch: Batch) -> Tensor:
    """Probabilities of the start and the end, `[B, L, 2]`: half those that were taught, half the data's."""
    taught = batch["taught_logits"].softmax(1)
    positions = torch.stack([batch["start_positions"], batch["end_positions"]], 1)
    return (taught + functional.one_hot(positions, taught.shape[1]).mT) / 2


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """What a model reads of a batch."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
