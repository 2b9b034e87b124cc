"""Losses of logits: against PyTorch's, against loops over groups, and least where they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dynamic_tinybert.training.tasks.sequence_classification import TASK
from dynamic_tinybert.training.tasks.sequence_classification.losses import CLASS, GRADE, HOLDS, NUMBER, PROBABILITY

KINDS = (CLASS, HOLDS, PROBABILITY, NUMBER, GRADE)


def batch_of(kind: str, rows: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits `[rows, K]` and a batch with labels of a kind, in groups of unequal size for grades."""
    random = np.random.default_rng(seed)
    outputs = 3 if kind in (CLASS, HOLDS) else 1
    logits = torch.from_numpy(random.normal(0, 2, (rows, outputs))).float()
    labels = {
        CLASS: random.integers(0, 3, rows),
        HOLDS: random.integers(0, 2, (rows, 3)).astype(float),
        PROBABILITY: random.random(rows),
        NUMBER: random.normal(0, 3, rows),
        GRADE: random.random(rows),
    }
    batch = {kind: torch.from_numpy(labels[kind])}
    if kind == GRADE:
        batch["group"] = torch.from_numpy(np.sort(random.integers(5, 5 + max(1, rows // 3), rows)))
    return logits, batch


def test_losses_are_those_of_pytorch() -> None:
    logits, batch = batch_of(CLASS, 7)
    torch.testing.assert_close(TASK.loss({"logits": logits}, batch), functional.cross_entropy(logits, batch[CLASS]))
    for kind in (HOLDS, PROBABILITY):
        logits, batch = batch_of(kind, 7)
        labels = batch[kind].float().view_as(logits)
        expected = functional.binary_cross_entropy_with_logits(logits, labels)
        torch.testing.assert_close(TASK.loss({"logits": logits}, batch), expected)
    logits, batch = batch_of(NUMBER, 7)
    expected = ((logits[:, 0] - batch[NUMBER].float()) ** 2).mean()
    torch.testing.assert_close(TASK.loss({"logits": logits}, batch), expected)


@given(rows=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_documents_are_compared_within_their_group(rows: int, seed: int) -> None:
    logits, batch = batch_of(GRADE, rows, seed)
    grades, groups, values = batch[GRADE].numpy(), batch["group"].numpy(), logits[:, 0].double().numpy()
    order = []
    for group in np.unique(groups):
        own = groups == group
        probabilities = np.exp(values[own]) / np.exp(values[own]).sum()
        order.append(-(grades[own] / grades[own].sum() * np.log(probabilities)).sum())
    level = np.mean(np.log1p(np.exp(values)) - grades * values)
    loss = TASK.loss({"logits": logits}, batch)
    assert float(loss) == pytest.approx((np.mean(order) + level) / 2, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_logits_are_better_than_the_teachers(kind: str) -> None:
    logits, batch = batch_of(kind, 9)
    targets = TASK.probabilities({"logits": logits}, batch)
    own = logits.clone().requires_grad_()
    loss = TASK.soft_loss({"logits": own}, targets, batch)
    loss.backward()
    assert own.grad is not None
    assert float(own.grad.abs().max()) < 1e-6
    for seed in range(20):
        other = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        assert TASK.soft_loss({"logits": other}, targets, batch) > loss


@pytest.mark.parametrize("kind", KINDS)
def test_soft_labels_are_between_labels_and_teacher(kind: str) -> None:
    logits, batch = batch_of(kind, 9)
    teacher = TASK.teacher_logits({"logits": logits})
    soft = TASK.soft_labels({**batch, "teacher_logits": teacher})
    out = {"logits": torch.zeros_like(logits)}
    by_labels, by_teacher = (
        TASK.loss(out, batch),
        TASK.soft_loss(out, TASK.probabilities({"logits": teacher}, batch), batch),
    )
    if kind != NUMBER:  # the squared error is not linear in its target
        torch.testing.assert_close(TASK.soft_loss(out, soft, batch), (by_labels + by_teacher) / 2)
    assert soft.shape == TASK.probabilities({"logits": teacher}, batch).shape
