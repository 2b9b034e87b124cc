"""The data for INT8: inputs to calibrate on, and other examples to compare with FP32 on. Each task has a reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from dynamic_tinybert.calibration.int8.tuning import Int8Change
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .parity import TokenBatch


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


SAMPLE_READERS: dict[str, str] = {
    "question_answering": "dynamic_tinybert.export.question_answering.samples:read_samples",
}
"""For each task's name the module and the attribute that hold its `ReadSamples`."""


def sample_reader(task: str) -> ReadSamples:
    """The reader of a task's samples.

    Raises:
        InvalidInputError: The task has none, so that it can be exported in FP32 only.
    """
    if task not in SAMPLE_READERS:
        raise InvalidInputError(
            f"INT8 cannot be calibrated for the task {task!r}, only for {', '.join(sorted(SAMPLE_READERS))}; export to "
            "fp32"
        )
    module, _, attribute = SAMPLE_READERS[task].partition(":")
    return cast(ReadSamples, getattr(import_module(module), attribute))
