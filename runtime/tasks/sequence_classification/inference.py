"""Run a classifier over many tokenized texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import TokenSequence, run_batches, stack
from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .labels import Labels
from .task import ClassificationOutput


@dataclass(frozen=True, slots=True)
class TextOutput:
    """The model's output for one input.

    Attributes:
        logits: float32 [labels].
        kept: For each layer that may drop tokens, the number of tokens that it passed on.
    """

    logits: npt.NDArray[np.float32]
    kept: Mapping[int, int]


def run_texts(
    model: LengthAdaptiveModel,
    sequences: Sequence[TokenSequence],
    labels: Labels,
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
    batch_size: int,
) -> list[TextOutput]:
    """Run all inputs, those of similar length together; outputs are in the inputs' order.

    Args:
        model: The model.
        sequences: The inputs.
        labels: What the model's outputs are.
        length_config: Which tokens each layer keeps; None for the model's default.
        batch_size: Maximum number of inputs to run at once.

    Raises:
        BundleFormatError: The graph has another number of outputs than config.json has labels.
    """

    def run(batch: list[int]) -> ClassificationOutput:
        output: ClassificationOutput = model(**stack([sequences[i] for i in batch]), length_config=length_config)
        check_outputs(model, output, labels)
        return output

    def output_of(batch: ClassificationOutput, row: int, kept: Mapping[int, int]) -> TextOutput:
        return TextOutput(batch.logits[row], kept)

    return run_batches(run, [len(sequence) for sequence in sequences], output_of, batch_size=batch_size)


def check_outputs(model: LengthAdaptiveModel, output: ClassificationOutput, labels: Labels) -> None:
    """Check that a model has as many outputs as labels.

    Raises:
        BundleFormatError: It has not.
    """
    if output.logits.shape[1] != len(labels):
        raise BundleFormatError(
            f"the graph of {model.bundle.path} has {output.logits.shape[1]} outputs, but its config.json has "
            f"{len(labels)} labels; export the checkpoint again"
        )


def logits_of(outputs: Sequence[TextOutput]) -> npt.NDArray[np.float32]:
    """The logits of all outputs, float32 [n, labels]; there must be at least one."""
    return np.stack([output.logits for output in outputs])
