"""The reference in PyTorch: BERT question answering whose layers drop tokens, as the exported graph must."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForQuestionAnswering
from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.encoder.learnt_layers import LearntLayers
from dynamic_tinybert.runtime.length_config import LengthConfig

from .scorer import ContextRule, Scorer

MASKED = -10000.0
"""Added to the attention scores of padding."""


@dataclass(frozen=True)
class ReferenceOutput:
    """What the reference computed, for a batch of B inputs of L tokens.

    Attributes:
        start_logits: `[B, L]`, at the tokens' original positions; those at padding mean nothing.
        end_logits: `[B, L]`, likewise.
        kept: For each selecting layer the original positions that it passed on, `[B, n]`, ascending; L fills
            up a row that kept fewer than n.
        entering: For each selecting layer the original positions that it chose from, `[B, rows]`; L for
            padding and fillers.
        significance: For each selecting layer the significance of those, `[B, rows]`.

    """

    start_logits: Tensor
    end_logits: Tensor
    kept: dict[int, Tensor]
    entering: dict[int, Tensor]
    significance: dict[int, Tensor]


class ReferenceModel(nn.Module):
    """Drop-and-restore around a `BertForQuestionAnswering`, whose weights it shares.

    Args:
        model: The plain model.
        significance: How tokens are ranked: by the attention that they receive, or by learnt scorers.
        scorers: For `learnt`, the scorer or the rule of the layers that have one.

    """

    def __init__(
        self,
        model: BertForQuestionAnswering,
        significance: Literal["attention", "learnt"] = "attention",
        scorers: Mapping[int, Scorer | ContextRule] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.significance = significance
        self.scorers = nn.ModuleDict({str(layer): scorer for layer, scorer in (scorers or {}).items()})

    @property
    def rule_layer(self) -> int | None:
        """The layer that has a rule, if one has."""
        ruled = (int(layer) for layer, scorer in self.scorers.items() if isinstance(scorer, ContextRule))
        return next(ruled, None)

    @property
    def learnt_layers(self) -> LearntLayers | None:
        """The layers with a scorer or the rule; None where significance is attention."""
        if self.significance == "attention":
            return None
        rules = {int(layer) for layer, scorer in self.scorers.items() if isinstance(scorer, ContextRule)}
        return LearntLayers(frozenset(map(int, self.scorers)) - rules, frozenset(rules))

    def carried_out(self, length_config: LengthConfig) -> LengthConfig:
        """A length configuration as this model can carry it out, see `LearntLayers.carried_out`.

        Raises:
            LengthConfigError: It has another number of layers, or a threshold where there is no scorer.
        """
        length_config.check_layers(len(self.model.bert.encoder.layer))
        learnt = self.learnt_layers
        return length_config if learnt is None else learnt.carried_out(length_config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        length_config: LengthConfig,
        forced_positions: Mapping[int, Tensor] | None = None,
        *,
        shares: Mapping[int, float] | None = None,
        skipped_layers: Collection[int] = (),
        attention_bias: Mapping[int, Tensor] | None = None,
    ) -> ReferenceOutput:
        """Answer logits under a length configuration.

        Args:
            input_ids: `[B, L]` int64.
            attention_mask: `[B, L]` int64, 0 for padding, else 1. Padding is not there, wherever it stands: what is
                behind it keeps its position, and is the neighbour of what is before it.
            token_type_ids: `[B, L]` int64, 0 for the first segment.
            length_config: Which tokens each layer passes on.
            forced_positions: For some selecting layers the original positions to pass on, `[B, n]`, ascending
                and filled up with L, instead of the most significant ones.
            shares: For some selecting layers the share of the batch's tokens to pass on, up to 1; it decides their
                thresholds.
            skipped_layers: Layers to leave out, as training with layer dropout does.
            attention_bias: For some layers `[B, R]`, for each of the R tokens that enter it, what is added to the
                attention scores that it receives; by its gradient training asks what a token is worth.

        Raises:
            LengthConfigError: The configuration has another number of layers than the model, or a threshold where
                there is no scorer.
            InvalidInputError: A forced position did not enter its layer.

        """
        layers = cast("list[BertLayer]", self.model.bert.encoder.layer)
        length_config, learnt = self.carried_out(length_config), self.learnt_layers
        computed = {} if learnt is None else learnt.computed(length_config, len(layers))
        batch, length = input_ids.shape
        positions = torch.arange(length, device=input_ids.device).expand(batch, length)
        real = attention_mask.bool()
        protected = real & (token_type_ids == 0)  # [CLS], the first segment and its [SEP]
        state = self.model.bert.embeddings(input_ids, token_type_ids)
        if bool((real[:, 1:] & ~real[:, :-1]).any()):
            slots = (~real).byte().argsort(dim=1, stable=True)  # padding behind all others
            state, positions = take(state, slots, 0), take(positions, slots, length)
            real, protected = take(real, slots, False), take(protected, slots, False)
        most_kept = torch.tensor([length_config.most_kept(n) for n in real.sum(1).tolist()]).to(real.device)
        logits = state.new_zeros(batch, length + 1, 2)  # fillers write to the last row
        kept, entering, significance = {}, {}, {}
        carried: Tensor | None = None  # the last significance that was learnt, of the rows that are still there

        for i, layer in enumerate(layers):
            if i in skipped_layers:
                continue
            rows = gather(state, real)  # thresholds keep more of some inputs than of others
            bias = None if attention_bias is None else attention_bias.get(i)
            context, probabilities = self._attend(cast(BertSelfAttention, layer.attention.self), rows, real, bias)
            rows = layer.attention.output(context, rows)
            selects = i in length_config.selecting_layers
            attended = spread(rows, real) if selects or i in computed else rows
            if i in computed:
                own = self.scorers[str(i)](attended, protected.to(state), real.to(state))
                carried = own * (1 + carried) if computed[i] and carried is not None else own
            if selects:
                logits = restore(logits, positions, self.model.qa_outputs(state))
                if probabilities is not None:
                    ranking = (probabilities * real[:, None, :, None]).sum((1, 2))
                else:
                    assert carried is not None  # no configuration as carried out selects before the first scorer
                    ranking = carried
                entering[i], significance[i] = positions.masked_fill(~real, length), ranking
                if forced_positions and i in forced_positions:
                    slots = _slots_of(forced_positions[i], entering[i], length, i)
                else:
                    threshold = length_config.thresholds[i]
                    if shares and i in shares:
                        threshold = _reached_by(ranking[real], shares[i] * int(attention_mask.sum()))
                    slots = select(ranking, real, most_kept[:, i], threshold)
                # The graph drops before output projection and LayerNorm where it can; both work row by row,
                # so dropping after them gives the same.
                state = take(attended, slots, 0)
                positions, real = take(positions, slots, length), take(real, slots, False)
                protected = take(protected, slots, False)
                carried = None if carried is None else take(carried, slots, 0)
                kept[i] = positions
                rows = gather(state, real)
            state = spread(layer.output(layer.intermediate(rows), rows), real)

        logits = restore(logits, positions, self.model.qa_outputs(state))
        start, end = logits[:, :length].unbind(-1)
        return ReferenceOutput(start, end, kept, entering, significance)

    def _attend(
        self, layer: BertSelfAttention, rows: Tensor, real: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention among the rows of each input; with `attention` its probabilities, too, `[B, heads, R, R]`.

        Args:
            layer: With the weights.
            rows: `[N, hidden]`, the states at `real`.
            real: `[B, R]` bool.
            bias: `[B, R]`, added to the scores that each token receives.

        """
        query, key, value = (
            spread(project(rows), real).view(*real.shape, layer.num_attention_heads, -1).transpose(1, 2)
            for project in (layer.query, layer.key, layer.value)
        )
        mask = MASKED * (~real).to(query)
        mask = (mask if bias is None else mask + bias.to(query))[:, None, None]
        dropout = layer.dropout.p if layer.training else 0.0
        if self.significance == "attention":
            probabilities = (query @ key.mT / query.shape[3] ** 0.5 + mask).softmax(3)
            context = functional.dropout(probabilities, dropout) @ value
        else:  # the same, without keeping probabilities
            probabilities = None
            context = functional.scaled_dot_product_attention(query, key, value, mask, dropout)
        return gather(context.transpose(1, 2).flatten(2), real), probabilities


def select(ranking: Tensor, real: Tensor, most: Tensor, threshold: float | None) -> Tensor:
    """Rows to keep, `[B, n]`, ascending, filled up with the number of rows R.

    Args:
        ranking: `[B, R]`, the higher the sooner kept; of equals the earlier row.
        real: `[B, R]` bool, rows that may be kept.
        most: `[B]`, how many to keep at most.
        threshold: Keep only those that reach it, or the first if none does.

    """
    ranking = ranking.detach().masked_fill(~real, -torch.inf)
    count = most.minimum(real.sum(1))
    if threshold is not None:
        count = count.minimum((ranking >= threshold).sum(1)).clamp(min=1)
    order = ranking.argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
    surplus = torch.arange(order.shape[1], device=order.device) >= count[:, None]
    return order.masked_fill(surplus, ranking.shape[1]).sort(1).values


def _reached_by(ranking: Tensor, count: float) -> float:
    """The threshold that so many of these reach, or all if there are fewer; it keeps protected tokens in any case."""
    sought = min(max(1, int(count)), len(ranking))
    return min(float(ranking.detach().sort(descending=True).values[sought - 1]), 1.0)


def _slots_of(wanted: Tensor, entering: Tensor, length: int, layer: int) -> Tensor:
    """Rows `[B, n]` that hold the wanted original positions `[B, n]`, filled up as in `_select`."""
    asked = wanted < length
    holds = (wanted[..., None] == entering[:, None]) & asked[..., None]
    found = holds.any(-1)
    if (lost := asked & ~found).any():
        raise InvalidInputError(f"forced positions {wanted[lost].tolist()} did not enter layer {layer}")
    return torch.where(found, holds.int().argmax(-1), entering.shape[1])


def take(rows: Tensor, slots: Tensor, filler: float) -> Tensor:
    """`rows[b, slots[b]]`; a slot one past the last row gives `filler`."""
    end = rows.new_full((rows.shape[0], 1, *rows.shape[2:]), filler)
    index = slots.view(*slots.shape, *[1] * (rows.dim() - 2))
    return torch.cat([rows, end], 1).take_along_dim(index, 1)


def gather(state: Tensor, real: Tensor) -> Tensor:
    """The N rows of `state` `[B, R, hidden]` at `real` `[B, R]`: `[N, hidden]`."""
    return state.flatten(0, 1).index_select(0, real.flatten().nonzero()[:, 0])


def spread(rows: Tensor, real: Tensor) -> Tensor:
    """`rows` `[N, hidden]` at the N places of `real` `[B, R]`, zeros elsewhere: `[B, R, hidden]`."""
    zeros = rows.new_zeros(real.numel(), rows.shape[1])
    return zeros.index_copy(0, real.flatten().nonzero()[:, 0], rows).view(*real.shape, -1)


def restore(logits: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    """`logits` `[B, L + 1, 2]` with `values` `[B, R, 2]` written at their original positions `[B, R]`."""
    index = positions[..., None].expand_as(values)
    return logits.scatter(1, index, values.to(logits))  # mixed precision gives values of less
