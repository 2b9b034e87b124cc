"""From windows to answers: the one path that all callers take."""

from __future__ import annotations

from collections.abc import Sequence

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .answers import Answer
from .inference import run_windows
from .no_answer import answers_with_threshold
from .options import AnswerOptions
from .windows import Window


def answer_windows(
    model: LengthAdaptiveModel,
    contexts: Sequence[str],
    windows: Sequence[Sequence[Window]],
    options: AnswerOptions,
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
) -> list[list[Answer]]:
    """Answer questions whose windows have been cut.

    Args:
        model: The model.
        contexts: The text of each question.
        windows: All windows of each question.
        options: How windows are batched and answers are chosen.
        length_config: Which tokens each layer keeps; None for the model's default.

    Returns:
        For each question a list of its answers, best first.
    """
    outputs = run_windows(model, windows, length_config=length_config, batch_size=options.batch_size)
    threshold = model.bundle.no_answer_threshold
    return [
        answers_with_threshold(context, own_windows, own_outputs, options, threshold)
        for context, own_windows, own_outputs in zip(contexts, windows, outputs, strict=True)
    ]
