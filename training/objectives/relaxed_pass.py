"""Drop-and-restore that passes gradients on to the choice of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import BertForQuestionAnswering
from transformers.models.bert.modeling_bert import BertLayer

from dynamic_tinybert.modeling.reference import MASKED
from dynamic_tinybert.modeling.rows import restore, select, take
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer
from dynamic_tinybert.training.batches import Batch, inputs_of

_LEAST_GATE = 1e-6  # of what is attended to: its logarithm must be finite


@dataclass(frozen=True)
class RelaxedOutput:
    """What a relaxed pass gives.

    Attributes:
        start_logits: `[B, L]`.
        end_logits: `[B, L]`.
        shares: For each layer the share of all real tokens that it passes on, of the batch, each with a gradient.
    """

    start_logits: Tensor
    end_logits: Tensor
    shares: Sequence[Tensor]


def relaxed_pass(
    model: BertForQuestionAnswering,
    scorers: Mapping[int, Scorer | ContextRule],
    thresholds: Mapping[int, Tensor],
    batch: Batch,
    *,
    temperature: float,
    hard: bool,
) -> RelaxedOutput:
    """Answer logits when each token goes on by a gate, the chance that its score reaches the layer's threshold.

    A token that goes on by a part g is attended to g times as much, and its state is g parts the layer's output and
    1 - g parts what it was: with gates of 0 and 1 this is drop-and-restore, but that scorers still see gaps where soft
    masks hide a token, and not the next one that goes on.

    Args:
        model: The model.
        scorers: By layer, maybe one of them a rule, by which tokens go on wholly or not at all.
        thresholds: Of the scorers' logits, by layer, scalars.
        batch: The windows.
        temperature: Of the chance: sigmoid((logit - threshold) / temperature), 1 for protected tokens.
        hard: Gates are 0 or 1, with the gradient of the chance; what is dropped is really gone, so that its own
            chance gets no gradient from the answers.
    """
    layers = cast("list[BertLayer]", model.bert.encoder.layer)
    ids, real, types = (inputs_of(batch)[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    real = real.bool()
    protected = real & (types == 0)
    batch_size, length = ids.shape
    count = real.sum()
    positions = torch.arange(length, device=ids.device).expand(batch_size, length)
    state: Tensor = model.bert.embeddings(ids, types)
    gate = real.to(state)
    logits = state.new_zeros(batch_size, length + 1, 2)  # fillers write to the last row
    shares = []
    for i, layer in enumerate(layers):
        mask = MASKED * (~real).to(state) + gate.clamp(min=_LEAST_GATE).log()
        attended = layer.attention.output(layer.attention.self(state, mask[:, None, None])[0], state)
        if i in scorers:
            scorer = scorers[i]
            if isinstance(scorer, ContextRule):
                chance = scorer(attended, protected.to(state), real.to(state))
            else:
                score = scorer.logits(attended, protected.to(state), gate * real)
                chance = torch.sigmoid((score - thresholds[i]) / temperature).masked_fill(protected, 1.0)
            if hard:
                gate = gate * (1 + chance - chance.detach())
                logits = restore(logits, positions, model.qa_outputs(state))
                slots = select(chance, real, real.sum(1), 0.5)
                attended, state, gate = (take(rows, slots, 0) for rows in (attended, state, gate))
                positions, real = take(positions, slots, length), take(real, slots, False)
                protected = take(protected, slots, False)
            else:
                gate = gate * chance
        after = layer.output(layer.intermediate(attended), attended)
        state = state + gate[..., None] * (after - state)
        shares.append((gate * real).sum() / count)
    logits = restore(logits, positions, model.qa_outputs(state))
    start, end = logits[:, :length].unbind(-1)
    return RelaxedOutput(start, end, shares)
