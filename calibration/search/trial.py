"""A length configuration with what was measured for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from dynamic_tinybert.runtime.length_config import LengthConfig


@dataclass(frozen=True)
class Trial:
    """A length configuration, measured on some questions.

    Attributes:
        config: The configuration.
        question_f1: F1 of each question in percent.
        macs: Mean executed multiply-accumulates of a question, all its windows together.
        latency_ms: Mean time of a question in milliseconds, measured or modelled.
    """

    config: LengthConfig
    question_f1: tuple[float, ...]
    macs: float
    latency_ms: float

    @cached_property
    def f1(self) -> float:
        """Mean F1 in percent."""
        return fmean(self.question_f1)


def joined(first: Trial, rest: Trial) -> Trial:
    """One trial from two of the same configuration on different questions."""
    weights = len(first.question_f1), len(rest.question_f1)
    return Trial(
        first.config,
        first.question_f1 + rest.question_f1,
        fmean((first.macs, rest.macs), weights),
        fmean((first.latency_ms, rest.latency_ms), weights),
    )
