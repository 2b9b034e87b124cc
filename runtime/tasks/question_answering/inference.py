"""Run a model over windows, in batches of windows of nearly the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.sequences import kept_by_layer, stack

from .task import QuestionAnsweringOutput
from .windows import Window


@dataclass(frozen=True, slots=True)
class WindowOutput:
    """What a model says of one window.

    Attributes:
        start_logits: float32 [L], L at least the tokens of the window.
        end_logits: float32 [L].
        kept: For each layer that may drop tokens, how many it passed on.
        kept_positions: For each of these layers the positions of the tokens it passed on, int32 [K], filled up with L.
    """

    start_logits: npt.NDArray[np.float32]
    end_logits: npt.NDArray[np.float32]
    kept: Mapping[int, int]
    kept_positions: Mapping[int, npt.NDArray[np.int32]] = field(default_factory=dict)

    def kept_by_layer(self, length: int, num_layers: int) -> tuple[int, ...]:
        """For each layer, how many tokens of a window of `length` went on from it."""
        return kept_by_layer(self.kept, length, num_layers)


def run_windows(
    model: Callable[..., QuestionAnsweringOutput],
    questions: Sequence[Sequence[Window]],
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
    batch_size: int,
) -> list[list[WindowOutput]]:
    """Run the windows of each question, at most `batch_size` at once; outputs are nested as the windows.

    Args:
        model: A `LengthAdaptiveModel`, or what can be called like one.
        questions: The windows of each question.
        length_config: Which tokens each layer keeps; None for the model's default.
        batch_size: Windows to run at once.
    """
    windows = [window for own in questions for window in own]
    outputs: dict[int, WindowOutput] = {}
    for batch in _batches([len(window) for window in windows], batch_size):
        output = model(**stack_windows([windows[i] for i in batch]), length_config=length_config)
        length = output.start_logits.shape[1]
        kept = {layer: (positions < length).sum(1) for layer, positions in output.kept_positions.items()}
        for row, i in enumerate(batch):
            outputs[i] = WindowOutput(
                output.start_logits[row],
                output.end_logits[row],
                {layer: int(counts[row]) for layer, counts in kept.items()},
                {layer: positions[row] for layer, positions in output.kept_positions.items()},
            )
    in_order = (outputs[i] for i in range(len(windows)))
    return [list(islice(in_order, len(own))) for own in questions]


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of what to run together: lengths that the model pads to the same multiple."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, members in groupby(by_length, key=lambda i: -(-lengths[i] // LENGTH_MULTIPLE)):
        bucket = list(members)
        for first in range(0, len(bucket), batch_size):
            yield bucket[first : first + batch_size]


def stack_windows(windows: Sequence[Window], *, multiple: int = 1) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs of a model for a batch of windows, int64 [B, L] by name; L is a multiple of `multiple`."""
    return stack(windows, multiple=multiple)
