"""The data for INT8: inputs to calibrate on, and other examples to compare with FP32 on. Each task has a reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from dynamic_tinybert.calibration.int8.tuning import Int8Change
from dynamic_tinybert.export.parity import TokenBatch
from dynamic_tinybert.runtime import LengthAdaptiveModel


class HeldOut(Protocol):
    """Examples to compare INT8 with FP32 on."""

    @property
    def name(self) -> str:
        """Where the examples come from, for messages."""

    def __len__(self) -> int:
        """Number of examples."""

    def first(self, count: int | None) -> Self:
        """The first `count` examples, or all if it is None."""

    def run(self, model: LengthAdaptiveModel) -> Sequence[Any]:
        """The outputs of a model for each example, at full length."""

    def compare(self, fp32: Sequence[Any], int8: Sequence[Any]) -> Int8Change:
        """Compare the results of `run` for two models."""


H = TypeVar("H", bound=HeldOut, covariant=True)


@dataclass(frozen=True)
class Samples(Generic[H]):
    """The data that INT8 needs.

    Attributes:
        calibration: Batches of one unpadded input each, in random order.
        held_out: Other examples, to compare with FP32 on.
        lines: Messages about examples that were skipped because the model cannot read them.
    """

    calibration: Sequence[TokenBatch]
    held_out: H
    lines: Sequence[str] = ()


class ReadSamples(Protocol):
    """Reads the samples of a task from files; the same arguments always give the same samples."""

    def __call__(
        self, tokenizer_file: Path, data: Path, validation: Path | None, count: int, max_length: int
    ) -> Samples[HeldOut]:
        """Read samples.

        Args:
            tokenizer_file: The checkpoint's tokenizer.json.
            data: Examples; some of them are held out if there is no `validation`.
            validation: Examples to compare on.
            count: Largest number of calibration inputs.
            max_length: Longest input of the model in tokens.

        Raises:
            DataError: A file cannot be read or holds no usable example, or none can be held out.
        """
