"""A pass that drops and restores tokens, with gradients for the choice of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer

from dynamic_tinybert.modeling.reference import MASKED
from dynamic_tinybert.modeling.rows import restore, select, take
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer
from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

_LEAST_GATE = 1e-6  # so that the logarithm is finite


@dataclass(frozen=True)
class RelaxedOutput:
    """The result of a relaxed pass.

    Attributes:
        outputs: The head's outputs by name.
        shares: For each layer the share of the batch's real tokens that it passes on, a scalar with a gradient.
    """

    outputs: Mapping[str, Tensor]
    shares: Sequence[Tensor]


def relaxed_pass(
    model: BertPreTrainedModel,
    scorers: Mapping[int, Scorer | ContextRule],
    thresholds: Mapping[int, Tensor],
    batch: TokenBatch,
    *,
    temperature: float,
    hard: bool,
) -> RelaxedOutput:
    """Run a model whose tokens each have a gate: the probability that the token's score reaches the layer's threshold.

    A token with gate g is attended to g times as much, and its new state is g times the layer's output plus 1 - g times
    its state before. With gates of 0 and 1 this is drop-and-restore, except that a token which a soft mask hides still
    separates its neighbours in the convolutions of scorers.

    Args:
        model: The model.
        scorers: Scorers by layer. The context rule among them gives gates of 0 or 1 without a gradient.
        thresholds: Thresholds of the scorers' logits, scalars by layer.
        batch: The inputs.
        temperature: Temperature of the probability sigmoid((logit - threshold) / temperature). Protected tokens have
            the probability 1.
        hard: Make gates 0 or 1, with the gradient of the probability. Tokens with gate 0 are removed, so that their
            own probabilities have no gradient.
    """
    task, inputs = task_of(model), inputs_of(batch)
    bert = encoder_of(model)
    layers = cast("list[BertLayer]", bert.encoder.layer)
    real, protected = inputs["attention_mask"].bool(), task.protected(inputs)
    batch_size, length = real.shape
    count = real.sum()
    positions = torch.arange(length, device=real.device).expand(batch_size, length)
    state: Tensor = bert.embeddings(inputs["input_ids"], inputs["token_type_ids"])
    gate = real.to(state)
    states = state.new_zeros(batch_size, length + 1, state.shape[2])  # fillers write to the last row
    shares = []
    for i, layer in enumerate(layers):
        mask = MASKED * (~real).to(state) + gate.clamp(min=_LEAST_GATE).log()
        attended = layer.attention.output(layer.attention.self(state, mask[:, None, None])[0], state)
        if i in scorers:
            scorer = scorers[i]
            if isinstance(scorer, ContextRule):
                probability = scorer(attended, protected.to(state), real.to(state))
            else:
                score = scorer.logits(attended, protected.to(state), gate * real)
                probability = torch.sigmoid((score - thresholds[i]) / temperature).masked_fill(protected, 1.0)
            if hard:
                gate = gate * (1 + probability - probability.detach())
                states = restore(states, positions, state)
                slots = select(probability, real, real.sum(1), 0.5)
                attended, state, gate = (take(rows, slots, 0) for rows in (attended, state, gate))
                positions, real = take(positions, slots, length), take(real, slots, False)
                protected = take(protected, slots, False)
            else:
                gate = gate * probability
        after = layer.output(layer.intermediate(attended), attended)
        state = state + gate[..., None] * (after - state)
        shares.append((gate * real).sum() / count)
    states = restore(states, positions, state)[:, :length]
    return RelaxedOutput(task.outputs(model, states), shares)
