"""Answer a question and record which tokens each layer drops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.windows import Window

from .answers import Answer, pipeline_answers
from .explanation import ExplainedToken, ExplainedWindow, ExplainedWord, Explanation, Segment
from .inference import WindowOutput, run_windows
from .options import AnswerOptions
from .windowing import Windowing


def explain(
    model: LengthAdaptiveModel,
    question: str,
    context: str,
    *,
    length_config: str | LengthConfig | Sequence[float] | None = None,
) -> Explanation:
    """Answer a question as `QuestionAnswerer` does by default, and report what each layer dropped.

    Args:
        model: The model.
        question: The question.
        context: The text to answer from.
        length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.

    Raises:
        InvalidInputError: A text is empty or not a string, or the question leaves no room in the window.
        LengthConfigError: Unknown or unfitting length configuration.
    """
    config = model.resolve(length_config)
    if length_config is None:
        length_config = model.bundle.default_length_config
    options = AnswerOptions.for_model(model.max_length)
    windows = Windowing.of(model, options.max_seq_len, options.doc_stride).cut(question, context)
    outputs = list(_outputs(model, windows, config))
    texts: dict[Segment, str] = {"question": question, "context": context}
    num_layers = len(config.keep_ratios)
    explained = tuple(
        _explained(window, output, texts, num_layers) for window, output in zip(windows, outputs, strict=True)
    )
    answer, answer_window = _answer(context, windows, outputs, options)
    full = LengthConfig.full(num_layers)
    return Explanation(
        question=question,
        context=context,
        answer=answer,
        answer_window=answer_window,
        length_config_name=length_config if isinstance(length_config, str) else None,
        length_config=config,
        macs=sum(model.executed_macs(config, len(window.tokens), window.kept) for window in explained),
        full_macs=sum(model.executed_macs(full, len(window), [len(window)] * num_layers) for window in windows),
        windows=explained,
    )


def _outputs(model: LengthAdaptiveModel, windows: Sequence[Window], config: LengthConfig) -> Iterator[WindowOutput]:
    """Run the windows one by one, so that an explanation does not depend on other windows in a batch."""
    for window in windows:
        ((output,),) = run_windows(model, [[window]], length_config=config, batch_size=1)
        yield output


def _answer(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], options: AnswerOptions
) -> tuple[Answer, int]:
    """The best answer, and the index of the window that gives it the largest score."""
    pairs = zip(windows, outputs, strict=True)
    best = [pipeline_answers(context, [window], [output], options)[0] for window, output in pairs]
    index = max(range(len(best)), key=lambda i: best[i]["score"])
    return best[index], index


def _explained(window: Window, output: WindowOutput, texts: Mapping[Segment, str], num_layers: int) -> ExplainedWindow:
    dropped_at = _dropped_at(output.kept_positions, len(window))
    kept = output.kept_by_layer(len(window), num_layers)
    return ExplainedWindow(kept, _tokens(window, dropped_at), _words(window, dropped_at, texts))


def _dropped_at(kept_positions: Mapping[int, npt.NDArray[np.int32]], length: int) -> list[int | None]:
    """For each token of a window, the layer that dropped it, or None; `kept_positions` as in `WindowOutput`."""
    dropped_at: list[int | None] = [None] * length
    left = set(range(length))
    for layer, positions in sorted(kept_positions.items()):
        dropped = left.difference(positions.tolist())
        for position in dropped:
            dropped_at[position] = layer
        left -= dropped
    return dropped_at


def _segments(window: Window) -> list[Segment | None]:
    """For each token of the window the text that it comes from, or None for a special token."""
    # The encoding's sequence ids do not serve: `tokenizers` leaves None for the question if there is one window.
    return [
        None if word is None else "question" if position < window.context.start else "context"
        for position, word in enumerate(window.encoding.word_ids)
    ]


def _tokens(window: Window, dropped_at: Sequence[int | None]) -> tuple[ExplainedToken, ...]:
    columns = zip(window.encoding.tokens, _segments(window), window.encoding.offsets, dropped_at, strict=True)
    return tuple(
        ExplainedToken(text, segment, start, end, at) if segment else ExplainedToken(text, None, None, None, at)
        for text, segment, (start, end), at in columns
    )


def _words(window: Window, dropped_at: Sequence[int | None], texts: Mapping[Segment, str]) -> tuple[ExplainedWord, ...]:
    columns = zip(_segments(window), window.encoding.word_ids, window.encoding.offsets, dropped_at, strict=True)
    words = []
    for (segment, _), tokens in groupby(columns, key=itemgetter(0, 1)):
        if segment is not None:
            *_, offsets, layers = zip(*tokens, strict=True)
            start, end = offsets[0][0], offsets[-1][1]
            at = None if None in layers else max(layers)
            words.append(ExplainedWord(texts[segment][start:end], segment, start, end, at))
    return tuple(words)
