"""Run a question-answering model over the windows of many questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import kept_by_layer, rows_of, run_batches, stack
from dynamic_tinybert.runtime.length_config import LengthConfig

from .task import QuestionAnsweringOutput
from .windows import Window


@dataclass(frozen=True, slots=True)
class WindowOutput:
    """The model's output for one window.

    Attributes:
        start_logits: float32 [L]; L is the window's number of tokens, or more with padding.
        end_logits: float32 [L].
        kept: For each layer that may drop tokens, the number of tokens that it passed on.
        kept_positions: For each of these layers, the positions of the tokens that it passed on, int32 [n], ascending
            and filled up with L.
    """

    start_logits: npt.NDArray[np.float32]
    end_logits: npt.NDArray[np.float32]
    kept: Mapping[int, int]
    kept_positions: Mapping[int, npt.NDArray[np.int32]] = field(default_factory=dict)

    def kept_by_layer(self, length: int, num_layers: int) -> tuple[int, ...]:
        """For each of `num_layers` layers, how many of the window's `length` tokens it passed on."""
        return kept_by_layer(self.kept, length, num_layers)


def run_windows(
    model: Callable[..., QuestionAnsweringOutput],
    questions: Sequence[Sequence[Window]],
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
    batch_size: int,
) -> list[list[WindowOutput]]:
    """Run the windows of each question in batches of at most `batch_size`; outputs are nested like the windows.

    Args:
        model: A `LengthAdaptiveModel`, or an object that can be called like one.
        questions: The windows of each question.
        length_config: Which tokens each layer keeps; None for the model's default.
        batch_size: Windows to run at once.
    """
    windows = [window for own in questions for window in own]

    def run(batch: list[int]) -> QuestionAnsweringOutput:
        return model(**stack([windows[i] for i in batch]), length_config=length_config)

    lengths = [len(window) for window in windows]
    outputs = iter(run_batches(run, lengths, _output_of, batch_size=batch_size))
    return [list(islice(outputs, len(own))) for own in questions]


def run_batch(
    model: Callable[..., QuestionAnsweringOutput],
    windows: Sequence[Window],
    **configs: Any,  # noqa: ANN401 - `length_config` or `length_configs`, as of the model
) -> list[WindowOutput]:
    """Run windows in one call of the model, padded to the longest; returns the output for each."""
    return rows_of(model(**stack(windows), **configs), [len(window) for window in windows], _output_of)


def _output_of(batch: QuestionAnsweringOutput, row: int, kept: Mapping[int, int]) -> WindowOutput:
    kept_positions = {layer: positions[row] for layer, positions in batch.kept_positions.items()}
    return WindowOutput(batch.start_logits[row], batch.end_logits[row], kept, kept_positions)
