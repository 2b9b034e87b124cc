"""The tokens of a batch as rows: which are kept, their original positions, and how dropped ones are restored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamic_tinybert.runtime.common.errors import InvalidInputError


@dataclass(frozen=True)
class Rows:
    """The tokens that were not dropped yet: R rows for each of B inputs of L tokens, in the order of the input.

    Attributes:
        state: Hidden states, `[B, R, hidden]`.
        positions: Position of each row in the input, `[B, R]`; L for fillers.
        real: `[B, R]` bool; False for padding and fillers.
        protected: `[B, R]` bool; True for rows that no layer drops by learnt significance.
        significance: Result of the last scorer or context rule, `[B, R]`; None before the first.
    """

    state: Tensor
    positions: Tensor
    real: Tensor
    protected: Tensor
    significance: Tensor | None = None

    def take(self, slots: Tensor, length: int) -> Rows:
        """The rows at `slots` `[B, n]`, of inputs of `length` tokens."""
        return Rows(
            take(self.state, slots, 0),
            take(self.positions, slots, length),
            take(self.real, slots, False),
            take(self.protected, slots, False),
            None if self.significance is None else take(self.significance, slots, 0),
        )


def select(ranking: Tensor, real: Tensor, most: Tensor, threshold: float | None, *, keep_first: bool = False) -> Tensor:
    """Rows to keep, `[B, n]`, ascending, filled up with the number of rows R.

    Args:
        ranking: `[B, R]`; rows with higher values are kept first, and of equal ones the earlier row.
        real: `[B, R]` bool, rows that may be kept.
        most: `[B]`, how many to keep at most.
        threshold: Keep only rows that reach it, or the highest-ranked row if none does; None for no threshold.
        keep_first: Row 0 ranks before all others, and is kept in any case.

    """
    ranking = ranking.detach().masked_fill(~real, -torch.inf)
    if keep_first:
        ranking = torch.cat([torch.full_like(ranking[:, :1], torch.inf), ranking[:, 1:]], 1)
    count = most.minimum(real.sum(1))
    if threshold is not None:
        count = count.minimum((ranking >= threshold).sum(1)).clamp(min=1)
    order = ranking.argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
    surplus = torch.arange(order.shape[1], device=order.device) >= count[:, None]
    return order.masked_fill(surplus, ranking.shape[1]).sort(1).values


def threshold_of_share(ranking: Tensor, count: float) -> float:
    """The threshold that `count` values of `ranking` [N] reach, or all of them if there are fewer.

    It is at most 1, so that protected tokens are kept in any case.
    """
    sought = min(max(1, int(count)), len(ranking))
    return min(float(ranking.detach().sort(descending=True).values[sought - 1]), 1.0)


def slots_of(wanted: Tensor, entering: Tensor, length: int, layer: int) -> Tensor:
    """The rows `[B, n]` in which the wanted original positions `[B, n]` stand, filled up as in `select`.

    Args:
        wanted: Original positions; `length` for a filler.
        entering: Original positions of the rows that enter the layer, `[B, R]`.
        length: Number of tokens of the input, L.
        layer: Number of the layer, for the error message.

    Raises:
        InvalidInputError: A wanted position is not among those that enter the layer.
    """
    asked = wanted < length
    holds = (wanted[..., None] == entering[:, None]) & asked[..., None]
    found = holds.any(-1)
    if (lost := asked & ~found).any():
        raise InvalidInputError(f"forced positions {wanted[lost].tolist()} did not enter layer {layer}")
    return torch.where(found, holds.int().argmax(-1), entering.shape[1])


def take(rows: Tensor, slots: Tensor, filler: float) -> Tensor:
    """`rows[b, slots[b]]`; a slot one past the last row yields `filler`."""
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


def restore(restored: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    """`restored` `[B, L + 1, n]` with `values` `[B, R, n]` written at their original positions `[B, R]`.

    The last of its rows is where fillers are written to.
    """
    index = positions[..., None].expand_as(values)
    return restored.scatter(1, index, values.to(restored))  # mixed precision yields values of a narrower type
