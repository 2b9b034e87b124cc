"""What tokens are worth to the layers behind one: how much an answer hangs on their being attended to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynamic_tinybert.training.batches import Batch

from .answer_losses import AnswerLogits

_LIFT = 1024.0  # of gradients, out of the numbers that float16 has too few digits for
_MATTERS = 0.03  # of an answer's logits, where worth is a half; of MiniLM's first layer 6 tokens in 10 are below


def open_gates(batch: Batch, num_layers: int) -> dict[int, Tensor]:
    """Biases of the attention that tokens receive, by layer, `[B, L]`: 0, which changes nothing but has a gradient."""
    zeros = torch.zeros_like(batch["input_ids"], dtype=torch.float32)
    return {layer: zeros.clone().requires_grad_() for layer in range(1, num_layers)}


def worth_of(output: AnswerLogits, gates: Mapping[int, Tensor], belief: Tensor, batch: Batch) -> dict[int, Tensor]:
    """For each layer but the last what a token is worth behind it, `[B, L]` from 0 to 1.

    A token that is dropped is no longer attended to. How much the answer's logits would change is, to first order,
    their derivative by the logarithm of the attention that the token receives; its amount is taken layer by layer, as
    what one layer gains another may lose.

    Args:
        output: Of a pass in which nothing was dropped.
        gates: What `open_gates` gave to that pass.
        belief: Probabilities of the start and the end, `[B, L, 2]`; logits count by how far they are from even.
        batch: The windows.
    """
    real = batch["attention_mask"].to(belief)
    counts = belief - (real / real.sum(1, keepdim=True))[..., None]
    answer = (counts * torch.stack([output.start_logits, output.end_logits], -1)).sum()
    gradients = torch.autograd.grad(_LIFT * answer, list(gates.values()), retain_graph=True)
    amounts = {gate: gradient / _LIFT for gate, gradient in zip(gates, gradients, strict=True)}
    worth = {}
    behind = torch.zeros_like(real)
    for layer in sorted(gates, reverse=True):
        behind = behind + amounts[layer].abs()
        worth[layer - 1] = behind / (behind + _MATTERS)
    return worth
