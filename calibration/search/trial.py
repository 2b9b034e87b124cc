"""A length configuration with its measurements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from dynamic_tinybert.runtime.length_config import LengthConfig


@dataclass(frozen=True)
class Trial:
    """A length configuration, measured on some examples.

    Attributes:
        config: The configuration.
        scores: Score of each example in points, 0 to 100.
        macs: Mean executed multiply-accumulates of an example, all its windows together.
        latency_ms: Mean time of an example in milliseconds, measured or predicted.
    """

    config: LengthConfig
    scores: tuple[float, ...]
    macs: float
    latency_ms: float

    @cached_property
    def score(self) -> float:
        """Mean score in points."""
        return fmean(self.scores)


def joined(first: Trial, rest: Trial) -> Trial:
    """One trial from two of the same configuration on different examples."""
    weights = len(first.scores), len(rest.scores)
    return Trial(
        first.config,
        first.scores + rest.scores,
        fmean((first.macs, rest.macs), weights),
        fmean((first.latency_ms, rest.latency_ms), weights),
    )
