"""Losses of a classifier's logits, and their targets. The name of a row's label says what the logits are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from dynamic_tinybert.training.batches import TokenBatch
from dynamic_tinybert.training.tasks.task import Outputs

CLASS = "class"
"""Index of the right class."""
HOLDS = "holds"
"""For labels that go together, 1 for each that holds, else 0."""
PROBABILITY = "probability"
"""For one output, the probability that its sigmoid should be, 0 to 1."""
NUMBER = "number"
"""For a regression, the number itself."""
GRADE = "grade"
"""For one output, how relevant a document is, 0 to 1; the documents of a query are a group."""


def targets_of_labels(batch: TokenBatch, outputs: int) -> Tensor:
    """What the labels of a batch say, in the form of `targets_of_logits`.

    Args:
        batch: The batch.
        outputs: Number of the model's outputs.
    """
    if CLASS in batch:
        return functional.one_hot(batch[CLASS], outputs).float()
    if HOLDS in batch:
        return batch[HOLDS].float()
    if GRADE in batch:
        grades = batch[GRADE].float()
        share = torch.cat([own / own.sum() for own in torch.split(grades, _sizes(batch))])
        return torch.stack([share, grades], 1)
    return batch[PROBABILITY if PROBABILITY in batch else NUMBER].float()[:, None]


def targets_of_logits(logits: Tensor, batch: TokenBatch) -> Tensor:
    """What a teacher's logits `[B, K]` say, without a gradient.

    Returns:
        For classes their probabilities, for labels that go together the probability of each, `[B, K]`; for one output
        its probability or the number itself, `[B, 1]`; for documents in groups, `[B, 2]`, the share of the group's
        relevance that is the document's (a softmax over the group), and the probability that it is relevant.
    """
    logits = logits.detach().float()
    if CLASS in batch:
        return logits.softmax(1)
    if GRADE in batch:
        share = torch.cat([own.softmax(0) for own in torch.split(logits[:, 0], _sizes(batch))])
        return torch.stack([share, logits[:, 0].sigmoid()], 1)
    return logits if NUMBER in batch else logits.sigmoid()


def loss_against(outputs: Outputs, targets: Tensor, batch: TokenBatch) -> Tensor:
    """Cross-entropy of classes, binary cross-entropy of outputs, or squared error of a regression.

    For documents in groups it is the mean of two: cross-entropy over each group, which learns the order, and binary
    cross-entropy of each document, without which the logits of a query would have any level.

    Args:
        outputs: `logits`, `[B, K]`.
        targets: What they should be, in the form of `targets_of_logits`.
        batch: The batch, for the kind of its labels and its groups.
    """
    logits = outputs["logits"].float()
    if CLASS in batch:
        return functional.cross_entropy(logits, targets)
    if NUMBER in batch:
        return functional.mse_loss(logits, targets)
    if GRADE not in batch:
        return functional.binary_cross_entropy_with_logits(logits, targets)
    sizes = _sizes(batch)
    by_group = [list(torch.split(values, sizes)) for values in (logits[:, 0], targets[:, 0])]
    least = torch.finfo(logits.dtype).min
    padded = pad_sequence(by_group[0], batch_first=True, padding_value=least)
    shares = pad_sequence(by_group[1], batch_first=True)
    order = functional.cross_entropy(padded, shares)
    return (order + functional.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 1])) / 2


def _sizes(batch: TokenBatch) -> list[int]:
    """Number of rows of each group, in order."""
    sizes: list[int] = torch.unique_consecutive(batch["group"], return_counts=True)[1].tolist()
    return sizes
