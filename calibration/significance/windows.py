"""The windows that scorers are fitted on, without their texts, in batches of similar length."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.tasks.measure import Measure

BATCH_SIZE = 16


@dataclass(frozen=True)
class CompactWindow:
    """A `TokenSequence` of a few bytes per token, so that those of many thousand questions can be kept."""

    input_ids: array[int]
    token_type_ids: array[int]

    @classmethod
    def of(cls, sequence: TokenSequence) -> CompactWindow:
        """Copy the tokens of a sequence."""
        return cls(array("i", sequence.input_ids), array("b", sequence.token_type_ids))

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)


def compact_windows(measure: Measure[Any], examples: Iterable[Any]) -> list[CompactWindow]:
    """All windows of the examples that the model can read."""
    return [CompactWindow.of(window) for example in examples for window in measure.windows_of(example)]


def batches_by_length(windows: Sequence[CompactWindow]) -> list[Sequence[CompactWindow]]:
    """Batches of windows of similar length."""
    ordered = sorted(windows, key=len)
    return [ordered[first : first + BATCH_SIZE] for first in range(0, len(ordered), BATCH_SIZE)]
