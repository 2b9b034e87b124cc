"""Schedules: the mean share of tokens that each layer is to keep. The search varies them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import InvalidInputError

Genes = npt.NDArray[np.float64]
"""Logarithms of shares, one schedule in each row."""

_LEAST_SHARE = 0.05
_GRID = 0.01
_LEAST_REDUCTION = 0.985  # a layer selects only if it keeps at most this share of the tokens that enter it

# For six layers; other depths interpolate them. Good ones come first, so that those which they beat are rejected
# early.
_KNOWN = (
    *(  # good with trained scorers; each layer that selects costs time
        (first, first, first, second, third, third)
        for first, second, third in (
            (0.75, 0.32, 0.24),
            (0.6, 0.27, 0.2),
            (0.46, 0.22, 0.16),
            (0.38, 0.19, 0.13),
            (0.3, 0.16, 0.11),
        )
    ),
    (315 / 384, 251 / 384, 242 / 384, 159 / 384, 142 / 384, 33 / 384),  # Dynamic-TinyBERT's, as ratios
    (269 / 384, 253 / 384, 252 / 384, 202 / 384, 104 / 384, 34 / 384),
    (1, 0.9, 0.7, 0.5, 0.3, 0.12),
    (1, 0.9, 0.6, 0.35, 0.25, 0.15),
    (1, 0.8, 0.5, 0.35, 0.25, 0.15),
    (1, 0.65, 0.45, 0.3, 0.2, 0.12),
    (1, 1, 0.65, 0.45, 0.3, 0.2),
    (1, 0.75, 0.75, 0.35, 0.35, 0.35),
    (1, 0.6, 0.6, 0.25, 0.25, 0.25),
    (1, 0.65, 0.45, 0.25, 0.25, 0.25),
    (1, 1, 1, 1, 0.5, 0.2),  # with attention significance, late drops cost least
    (1, 1, 1, 1, 0.2, 0.1),
    *((ratio,) * 6 for ratio in (0.9, 0.8, 0.7, 0.6)),
)


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

    def __init__(self, num_layers: int, *, selectable: Collection[int] | None = None) -> None:
        """Set the bounds.

        Args:
            num_layers: Number of layers of the encoder.
            selectable: Layers that may select; None for all.

        Raises:
            InvalidInputError: No layer may select.
        """
        self._num_layers = num_layers
        self._selectable = frozenset(range(num_layers) if selectable is None else selectable)
        if not self._selectable:
            raise InvalidInputError("selectable is empty: a search needs a layer that may drop tokens")
        self.lower: Genes = np.full(num_layers, math.log(_LEAST_SHARE))
        self.upper: Genes = np.zeros(num_layers)

    def repair(self, genes: Genes) -> Genes:
        """The nearest schedules on the grid that never grow and select only where that drops enough tokens.

        Args:
            genes: [schedules, num_layers].
        """
        genes = np.clip(genes, self.lower, self.upper)
        shares = np.round(np.exp(genes) / _GRID) * _GRID
        before = np.ones(len(genes))
        for layer in range(self._num_layers):
            selects = (shares[:, layer] <= _LEAST_REDUCTION * before) & (layer in self._selectable)
            before = shares[:, layer] = np.where(selects, shares[:, layer], before)
        return np.log(shares)

    def decode(self, genes: Genes) -> Schedule:
        """The schedule of one row of repaired genes."""
        return Schedule(tuple(round(float(share), 2) for share in np.exp(genes)))

    def known(self) -> Genes:
        """Published schedules, schedules that proved good, and constant ones."""
        depth, depths = np.linspace(0, 1, self._num_layers), np.linspace(0, 1, 6)
        shares = np.array([np.interp(depth, depths, schedule) for schedule in _KNOWN])
        return self.repair(np.log(shares))

    def features(self, genes: Genes) -> npt.NDArray[np.float64]:
        """Coordinates that cost and loss depend on smoothly, on comparable scales: shares, and which layers select."""
        selects = np.diff(genes, axis=1, prepend=0) < 0
        return np.column_stack([genes, 0.2 * selects])

    def random(self, count: int, generator: np.random.Generator) -> Genes:
        """Random smooth schedules: a random total decrease, split at random among the layers."""
        total = generator.uniform(0.6, 2.8, (count, 1))
        parts = generator.dirichlet(np.full(self._num_layers + 1, 2.0), count)[:, :-1]
        return self.repair(-np.cumsum(total * parts, axis=1))
