"""Schedules: the mean share of tokens that each layer is to keep. The search varies them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .seeds import Seed, shares_at

Genes = npt.NDArray[np.float64]
"""Logarithms of shares, one schedule in each row."""

_LEAST_SHARE = 0.05
_GRID = 0.01
_LEAST_REDUCTION = 0.985  # a layer selects only if it keeps at most this share of the tokens that enter it


@dataclass(frozen=True)
class Schedule:
    """Mean kept shares.

    Attributes:
        shares: For each layer the share of an input's tokens that it passes on, averaged over inputs;
            non-increasing in (0, 1]. A layer that keeps the share of the layer before it (the first layer: 1) does not
            select.
    """

    shares: tuple[float, ...]

    @classmethod
    def of_layers(cls, num_layers: int, share_after: Mapping[int, float]) -> Schedule:
        """The schedule in which only some layers select, given the share that each of them passes on."""
        shares, before = [], 1.0
        for layer in range(num_layers):
            before = share_after.get(layer, before)
            shares.append(before)
        return cls(tuple(shares))


class ScheduleSpace:
    """The schedules that a search may try, on a grid of shares."""

    def __init__(
        self,
        num_layers: int,
        seeds: Sequence[Seed],
        *,
        selectable: Collection[int] | None = None,
        most_selecting: int | None = None,
    ) -> None:
        """Set the bounds.

        Args:
            num_layers: Number of layers of the encoder.
            seeds: What `known` gives, at this depth.
            selectable: Layers that may select; None for all.
            most_selecting: Largest number of layers that select in one schedule; None for no limit.

        Raises:
            InvalidInputError: No layer may select.
        """
        self._num_layers = num_layers
        self._seeds = seeds
        self._selectable = sorted(range(num_layers) if selectable is None else selectable)
        self._most_selecting = len(self._selectable) if most_selecting is None else most_selecting
        if not self._selectable:
            raise InvalidInputError("selectable is empty: a search needs a layer that may drop tokens")
        if self._most_selecting < 1:
            raise InvalidInputError(f"most_selecting is {most_selecting}; a search needs a layer that may drop tokens")
        self.lower: Genes = np.full(num_layers, math.log(_LEAST_SHARE))
        self.upper: Genes = np.zeros(num_layers)

    def repair(self, genes: Genes) -> Genes:
        """The nearest schedules of this space: on the grid, never growing, and selecting where that drops enough.

        If too many layers select, those that drop the smallest shares of their tokens leave it to the next one.

        Args:
            genes: [schedules, num_layers].
        """
        genes = np.clip(genes, self.lower, self.upper)
        shares = np.round(np.exp(genes) / _GRID) * _GRID
        before = np.ones(len(genes))
        for layer in range(self._num_layers):
            selects = (shares[:, layer] <= _LEAST_REDUCTION * before) & (layer in self._selectable)
            before = shares[:, layer] = np.where(selects, shares[:, layer], before)
        for own in shares:
            self._limit_selecting(own)
        return np.log(shares)

    def _limit_selecting(self, shares: npt.NDArray[np.float64]) -> None:
        """Merge selections of one schedule, in place, until there are no more than allowed."""
        while True:
            before = np.concatenate([[1.0], shares[:-1]])
            selecting = np.flatnonzero(shares < before)
            if len(selecting) <= self._most_selecting:
                return
            kept = shares[selecting] / before[selecting]
            least = int(kept[:-1].argmax())  # the last one has no next one
            shares[selecting[least] : selecting[least + 1]] = before[selecting[least]]

    def decode(self, genes: Genes) -> Schedule:
        """The schedule of one row of repaired genes."""
        return Schedule(tuple(round(float(share), 2) for share in np.exp(genes)))

    def known(self) -> Genes:
        """The seeds, in their order, without those that become equal to an earlier one."""
        repaired = self.repair(np.log([shares_at(seed, self._num_layers) for seed in self._seeds]))
        _, first = np.unique(repaired, axis=0, return_index=True)
        return np.asarray(repaired[np.sort(first)])

    def features(self, genes: Genes) -> npt.NDArray[np.float64]:
        """Coordinates that cost and loss depend on smoothly, on comparable scales: shares, and which layers select."""
        selects = np.diff(genes, axis=1, prepend=0) < 0
        return np.column_stack([genes, 0.2 * selects])

    def random(self, count: int, generator: np.random.Generator) -> Genes:
        """Random schedules: a random total decrease, split at random among a random choice of layers."""
        most = min(self._most_selecting, len(self._selectable))
        drops = np.zeros((count, self._num_layers))
        for own in drops:
            layers = generator.choice(self._selectable, generator.integers(1, most + 1), replace=False)
            own[layers] = generator.uniform(0.4, 2.4) * generator.dirichlet(np.full(len(layers), 2.0))
        return self.repair(-np.cumsum(drops, axis=1))
