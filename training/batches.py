"""Training rows, the batches of them that steps train on, and how a batch becomes tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

TokenBatch = Mapping[str, Tensor]
"""The tensors of a step by name: `input_ids`, `attention_mask` and `token_type_ids`, int64 `[B, L]`; each label of the
rows, `[B]` or `[B, K]`; and, if the rows have them, `group`, int64 `[B]`, and `teacher_logits`, float32 `[B, L, K]` or
`[B, K]`."""

Label = int | float | tuple[float, ...]
"""A label of a row: an index, a number, or a number for each output of the model."""

_SORTED_BATCHES = 50  # rows are sorted by length within this many batches; with more, epochs would be too similar


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One input of the model with its labels.

    Attributes:
        ids: Token ids, int32 `[N]`.
        second_segment: Index of the first token of the second segment, which is the context for question answering;
            before it are [CLS], the first segment and its [SEP].
        labels: The labels, each a `Label`, by the names under which the task's losses look for them in a batch.
        group: Number of the group that the row belongs to: rows of a group are neighbours, and one step trains on all
            of them. None for a row of its own.
        teacher_logits: The logits of a teacher, float16, `[N, K]` for a task that labels tokens, else `[K]`; None if
            no teacher was run.
    """

    ids: npt.NDArray[np.int32]
    second_segment: int
    labels: Mapping[str, Any]
    group: int | None = None
    teacher_logits: npt.NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def plan_batches(
    lengths: Sequence[int], batch_size: int, *, epochs: float, max_steps: int | None, seed: int
) -> list[list[int]]:
    """The rows of every step of a training, in order; each epoch is shuffled anew, rows of similar length together.

    The plan depends on the arguments alone, so that a resumed training sees the same batches.

    Args:
        lengths: Number of tokens of each row.
        batch_size: Number of rows of a step.
        epochs: Number of times that each row is seen; a fraction cuts off the end of the last epoch.
        max_steps: Number of steps, instead of `epochs`.
        seed: Seed of the order.

    Returns:
        For each step, the indices of its rows.
    """
    in_epoch = math.ceil(len(lengths) / batch_size)
    steps = math.ceil(epochs * in_epoch) if max_steps is None else max_steps
    plan: list[list[int]] = []
    for epoch in range(math.ceil(steps / in_epoch)):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths))
        pools = np.split(order, range(_SORTED_BATCHES * batch_size, len(order), _SORTED_BATCHES * batch_size))
        by_length = [row for pool in pools for row in sorted(pool.tolist(), key=lengths.__getitem__)]
        batches = [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
        plan += [batches[i] for i in random.permutation(len(batches))]
    return plan[:steps]


def plan_rows(
    rows: Sequence[TrainingRow], batch_size: int, *, epochs: float, max_steps: int | None, seed: int
) -> list[list[int]]:
    """The plan of `plan_batches` for rows of which some belong to groups.

    Args:
        rows: The rows.
        batch_size: Largest number of rows of a step; a larger group is a step of its own.
        epochs: As for `plan_batches`, like the following arguments.
        max_steps: Number of steps, instead of `epochs`.
        seed: Seed of the order.
    """
    groups: list[list[int]] = []
    for i, row in enumerate(rows):
        if i > 0 and row.group is not None and row.group == rows[i - 1].group:
            groups[-1].append(i)
        else:
            groups.append([i])
    lengths = [max(len(rows[i]) for i in group) for group in groups]
    in_step = max(1, batch_size // max(map(len, groups)))
    plan = plan_batches(lengths, in_step, epochs=epochs, max_steps=max_steps, seed=seed)
    return [[i for group in step for i in groups[group]] for step in plan]


def collate(rows: Sequence[TrainingRow]) -> dict[str, Tensor]:
    """A `TokenBatch` of rows, padded to the longest; it has `teacher_logits` if all rows do."""
    shape = len(rows), max(map(len, rows))
    input_ids, attention_mask, token_type_ids = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = torch.from_numpy(row.ids)
        attention_mask[i, : len(row)] = 1
        token_type_ids[i, row.second_segment : len(row)] = 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
    batch |= {name: torch.tensor([row.labels[name] for row in rows]) for name in rows[0].labels}
    groups = [row.group for row in rows if row.group is not None]
    if len(groups) == len(rows):
        batch["group"] = torch.tensor(groups)
    logits = [torch.from_numpy(row.teacher_logits).float() for row in rows if row.teacher_logits is not None]
    if len(logits) == len(rows):
        batch["teacher_logits"] = pad_sequence(logits, batch_first=True, padding_value=-torch.inf)
    return batch


def inputs_of(batch: TokenBatch) -> dict[str, Tensor]:
    """The inputs of the model that a batch holds."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def droppable(batch: TokenBatch) -> Tensor:
    """1 for tokens that scorers decide about, `[B, L]` int64: those of the second segment; 0 for all others."""
    return batch["attention_mask"] * batch["token_type_ids"]
