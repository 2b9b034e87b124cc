"""The reference in PyTorch: a BERT model whose layers drop the tokens that the exported graph must drop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention

from dynamic_tinybert.runtime.encoder.learnt_layers import LearntLayers
from dynamic_tinybert.runtime.length_config import LengthConfig

from .rows import Rows, gather, restore, select, slots_of, spread, threshold_of_share
from .scorer import ContextRule, Scorer
from .tasks import task_of
from .tasks.task import encoder_of

MASKED = -10000.0
"""Added to the attention scores of padding, before the softmax."""


@dataclass(frozen=True)
class ReferenceOutput:
    """The output of the reference, for a batch of B inputs of L tokens.

    The head's outputs can also be read as attributes, as with transformers' models: `output.start_logits`.

    Attributes:
        outputs: The head's outputs by name. Those of a per-token head are `[B, L]`, at the tokens' original positions;
            their values at padding are undefined.
        kept: For each selecting layer, the original positions that it passed on, `[B, n]`, ascending; inputs that
            kept fewer than n are filled up with L.
        entering: For each selecting layer, the original positions that it chose from, `[B, R]`; L for padding and
            fillers.
        significance: For each selecting layer, the significance of the tokens in `entering`, `[B, R]`.

    """

    outputs: Mapping[str, Tensor]
    kept: Mapping[int, Tensor]
    entering: Mapping[int, Tensor]
    significance: Mapping[int, Tensor]

    def __getattr__(self, name: str) -> Tensor:
        """The head's output with this name."""
        try:
            return cast(Tensor, self.__dict__["outputs"][name])
        except KeyError:
            raise AttributeError(f"a {type(self).__name__} has no attribute or output {name!r}") from None


class ReferenceModel(nn.Module):
    """A plain model with drop-and-restore: layers drop tokens, and the head sees all of them. The weights are shared.

    Args:
        model: The plain model, of one of the tasks.
        significance: What tokens are ranked by: the attention that they receive, or learnt scorers.
        scorers: For `learnt`, the scorer or the context rule of each layer that has one.

    Raises:
        InvalidInputError: The model's class belongs to no task.

    """

    def __init__(
        self,
        model: BertPreTrainedModel,
        significance: Literal["attention", "learnt"] = "attention",
        scorers: Mapping[int, Scorer | ContextRule] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task_of(model)
        self.significance = significance
        self.scorers = nn.ModuleDict({str(layer): scorer for layer, scorer in (scorers or {}).items()})

    @property
    def rule_layer(self) -> int | None:
        """The layer with the context rule; None if there is none."""
        ruled = (int(layer) for layer, scorer in self.scorers.items() if isinstance(scorer, ContextRule))
        return next(ruled, None)

    @property
    def learnt_layers(self) -> LearntLayers | None:
        """The layers with a scorer or the context rule; None for attention significance."""
        if self.significance == "attention":
            return None
        rules = {int(layer) for layer, scorer in self.scorers.items() if isinstance(scorer, ContextRule)}
        return LearntLayers(frozenset(map(int, self.scorers)) - rules, frozenset(rules))

    def carried_out(self, length_config: LengthConfig) -> LengthConfig:
        """A length configuration as this model can carry it out; see `LearntLayers.carried_out`.

        Raises:
            LengthConfigError: It has another number of layers, or a threshold for a layer without a scorer.
        """
        length_config.check_layers(len(encoder_of(self.model).encoder.layer))
        if self.task.first_token_only:
            length_config = length_config.without_last_selection()
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
        """Compute the head's outputs at a length configuration.

        Args:
            input_ids: `[B, L]` int64.
            attention_mask: `[B, L]` int64, 0 for padding, else 1. Padding is ignored wherever it stands: a token
                after it keeps its position, and counts as the neighbour of the last token before it.
            token_type_ids: `[B, L]` int64, 0 for the first segment.
            length_config: Which tokens each layer passes on.
            forced_positions: For some selecting layers, the original positions to pass on, `[B, n]`, ascending
                and filled up with L, instead of the most significant ones.
            shares: For some selecting layers, the share of the batch's tokens to pass on, up to 1; it replaces
                their thresholds.
            skipped_layers: Layers to leave out, as training with layer dropout does.
            attention_bias: For some layers, `[B, R]`: added to the attention scores that each of the R tokens entering
                the layer receives. Training derives token importance from its gradient.

        Raises:
            LengthConfigError: The configuration has another number of layers than the model, or a threshold for a
                layer without a scorer.
            InvalidInputError: A forced position did not enter its layer.

        """
        layers = cast("list[BertLayer]", encoder_of(self.model).encoder.layer)
        length_config, learnt = self.carried_out(length_config), self.learnt_layers
        computed = {} if learnt is None else learnt.computed(length_config, len(layers))
        length, num_tokens = input_ids.shape[1], int(attention_mask.sum())
        rows = self._embedded(input_ids, attention_mask, token_type_ids)
        most_kept = torch.tensor([length_config.most_kept(n) for n in rows.real.sum(1).tolist()]).to(rows.real.device)
        states = rows.state.new_zeros(len(input_ids), length + 1, rows.state.shape[2])  # fillers write to the last row
        kept, entering, significance = {}, {}, {}

        for i, layer in enumerate(layers):
            if i in skipped_layers:
                continue
            real_rows = gather(rows.state, rows.real)  # thresholds keep more of some inputs than of others
            bias = None if attention_bias is None else attention_bias.get(i)
            attention = cast(BertSelfAttention, layer.attention.self)
            context, probabilities = self._attend(attention, real_rows, rows.real, bias)
            real_rows = layer.attention.output(context, real_rows)
            selects = i in length_config.selecting_layers
            attended = spread(real_rows, rows.real) if selects or i in computed else real_rows
            if i in computed:
                rows = replace(rows, significance=self._score(i, attended, rows, accumulated=computed[i]))
            if selects:
                states = restore(states, rows.positions, rows.state)
                if probabilities is not None:
                    ranking = (probabilities * rows.real[:, None, :, None]).sum((1, 2))
                else:
                    assert rows.significance is not None  # `carried_out` lets no layer select before a scorer
                    ranking = rows.significance
                entering[i], significance[i] = rows.positions.masked_fill(~rows.real, length), ranking
                if forced_positions and i in forced_positions:
                    slots = slots_of(forced_positions[i], entering[i], length, i)
                else:
                    threshold = length_config.thresholds[i]
                    if shares and i in shares:
                        threshold = threshold_of_share(ranking[rows.real], shares[i] * num_tokens)
                    keep_first = self.task.first_token_only
                    slots = select(ranking, rows.real, most_kept[:, i], threshold, keep_first=keep_first)
                # The graph drops before output projection and LayerNorm where it can; both work row by row,
                # so dropping after them gives the same.
                rows = replace(rows, state=attended).take(slots, length)
                kept[i] = rows.positions
                real_rows = gather(rows.state, rows.real)
            rows = replace(rows, state=spread(layer.output(layer.intermediate(real_rows), real_rows), rows.real))

        states = restore(states, rows.positions, rows.state)[:, :length]
        outputs = {name: value.to(states) for name, value in self.task.outputs(self.model, states).items()}
        return ReferenceOutput(outputs, kept, entering, significance)

    def _embedded(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Rows:
        """The embeddings of all tokens, with the padding of each input moved to its end."""
        batch, length = input_ids.shape
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        positions = torch.arange(length, device=input_ids.device).expand(batch, length)
        real = attention_mask.bool()
        rows = Rows(
            encoder_of(self.model).embeddings(input_ids, token_type_ids), positions, real, self.task.protected(inputs)
        )
        if bool((real[:, 1:] & ~real[:, :-1]).any()):
            rows = rows.take((~real).byte().argsort(dim=1, stable=True), length)
        return rows

    def _score(self, layer: int, attended: Tensor, rows: Rows, *, accumulated: bool) -> Tensor:
        """A layer's learnt significance `[B, R]`; if `accumulated`, times 1 + the significance that it follows."""
        own: Tensor = self.scorers[str(layer)](attended, rows.protected.to(attended), rows.real.to(attended))
        return own * (1 + rows.significance) if accumulated and rows.significance is not None else own

    def _attend(
        self, layer: BertSelfAttention, rows: Tensor, real: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention among the rows of each input; for attention significance also its probabilities `[B, heads, R, R]`.

        Args:
            layer: The layer's self-attention module.
            rows: `[N, hidden]`, the states of the N real rows.
            real: `[B, R]` bool.
            bias: `[B, R]`, added to the attention scores that each token receives; or None.

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
