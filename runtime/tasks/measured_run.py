"""What the evaluations of all tasks have in common: times, tokens and multiply-accumulates of a run over examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from statistics import fmean
from typing import Self

import numpy as np


@dataclass(frozen=True)
class MeasuredRun(ABC):
    """A run over the examples of a data file. Fields that are tuples have a value for each example or window.

    Attributes:
        ids: The ids of the examples. All other values per example are in the same order.
        window_lengths: Number of real tokens of each window, example by example.
        window_kept: For each window, the number of tokens that each layer passed on.
        mean_macs: Mean executed multiply-accumulates of a window.
    """

    ids: tuple[str, ...]
    window_lengths: tuple[int, ...]
    window_kept: tuple[tuple[int, ...], ...]
    mean_macs: float

    @property
    @abstractmethod
    def means(self) -> Mapping[str, float]:
        """The means that a bundle's manifest records."""

    @property
    @abstractmethod
    def example_ms(self) -> tuple[float, ...]:
        """Time of each example in milliseconds; empty for a run in batches."""

    @property
    def mean_length(self) -> float:
        """Mean number of real tokens of a window."""
        return fmean(self.window_lengths)

    @property
    def mean_kept(self) -> tuple[float, ...]:
        """For each layer, the mean number of tokens of a window that it passed on."""
        return tuple(map(fmean, zip(*self.window_kept, strict=True)))

    def latency_ms(self, percentile: float) -> float | None:
        """A percentile (0 to 100) of the examples' times, in milliseconds; None for a run in batches."""
        return float(np.percentile(self.example_ms, percentile)) if self.example_ms else None

    def join(self, others: Sequence[Self]) -> Self:
        """One run over the examples of this one and of others, which ran with the same options."""
        parts = [self, *others]
        rows = {
            field.name: tuple(chain.from_iterable(getattr(part, field.name) for part in parts))
            for field in fields(self)
            if isinstance(getattr(self, field.name), tuple)
        }
        mean_macs = fmean([part.mean_macs for part in parts], [len(part.window_lengths) for part in parts])
        return replace(self, mean_macs=mean_macs, **rows)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, means and percentiles included."""
        return asdict(self) | {
            **self.means,
            "mean_length": self.mean_length,
            "mean_kept": self.mean_kept,
            "latency_p50_ms": self.latency_ms(50),
            "latency_p95_ms": self.latency_ms(95),
        }
