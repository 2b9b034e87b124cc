"""Which words each layer drops on the way to an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .inference import WindowOutput, stack_windows
from .spans import Answer, pipeline_answers
from .windows import Window, WindowTokenizer, window_size

Segment = Literal["question", "context"]


@dataclass(frozen=True, slots=True)
class ExplainedToken:
    """A token of a window.

    Attributes:
        text: As in the vocabulary.
        segment: The text that it is from; None for the special tokens around the two.
        start: Where it begins in that text, in characters; None for special tokens.
        end: Where it ends, exclusive; None for special tokens.
        dropped_at: The layer that did not pass it on; None if every layer did.
    """

    text: str
    segment: Segment | None
    start: int | None
    end: int | None
    dropped_at: int | None


@dataclass(frozen=True, slots=True)
class ExplainedWord:
    """A word or punctuation mark of a window.

    Attributes:
        text: As it is written.
        segment: The text that it is from.
        start: Where it begins in that text, in characters.
        end: Where it ends, exclusive.
        dropped_at: The layer that did not pass on the last that was left of its tokens; None if one was never
            dropped.
    """

    text: str
    segment: Segment
    start: int
    end: int
    dropped_at: int | None


@dataclass(frozen=True, slots=True)
class ExplainedWindow:
    """The question and one stretch of the context.

    Attributes:
        kept: For each layer, how many of the tokens it passed on.
        tokens: All that the model read.
        words: The same as words: the question's, then the context's.
    """

    kept: tuple[int, ...]
    tokens: tuple[ExplainedToken, ...]
    words: tuple[ExplainedWord, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer, and what each layer dropped on the way to it.

    Attributes:
        question: The question.
        context: The text that was asked.
        answer: The best answer.
        answer_window: Index of the window that it is from; where several hold its place, of the surest one.
        length_config_name: Name of the length configuration in the bundle; None for one without.
        length_config: The length configuration, as it is carried out (`LengthAdaptiveModel.resolve`).
        macs: Multiply-accumulates executed, over all windows.
        full_macs: Those of `full`.
        windows: One, or several that overlap if the context is long.
    """

    question: str
    context: str
    answer: Answer
    answer_window: int
    length_config_name: str | None
    length_config: LengthConfig
    macs: int
    full_macs: int
    windows: tuple[ExplainedWindow, ...]

    @property
    def macs_fewer(self) -> float:
        """MACs of `full` divided by those executed."""
        return self.full_macs / self.macs

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self) | {"macs_fewer": self.macs_fewer}


def explain(
    model: LengthAdaptiveModel,
    question: str,
    context: str,
    *,
    length_config: str | LengthConfig | Sequence[float] | None = None,
) -> Explanation:
    """Answer a question as `QuestionAnswerer` does by default, and say what each layer dropped on the way.

    Args:
        model: The model.
        question: What to ask.
        context: The text to answer from.
        length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.

    Raises:
        InvalidInputError: A text is empty or not a string, or the question leaves no room in the window.
        LengthConfigError: Unknown or unfitting length configuration.
    """
    config = model.resolve(length_config)
    if length_config is None:
        length_config = model.bundle.default_length_config
    num_layers = len(config.keep_ratios)
    max_seq_len, doc_stride = window_size(model.max_length)
    windows = WindowTokenizer(model.tokenizer_file)(question, context, max_seq_len=max_seq_len, doc_stride=doc_stride)
    texts: dict[Segment, str] = {"question": question, "context": context}
    outputs, explained = [], []
    for window in windows:
        output = model(**stack_windows([window]), length_config=config)
        dropped_at = _dropped_at(output.kept_positions, len(window))
        kept = tuple(sum(at is None or at > layer for at in dropped_at) for layer in range(num_layers))
        outputs.append(WindowOutput(output.start_logits[0], output.end_logits[0], dict(enumerate(kept))))
        explained.append(ExplainedWindow(kept, _tokens(window, dropped_at), _words(window, dropped_at, texts)))
    answer, answer_window = _answer(context, windows, outputs)
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
        windows=tuple(explained),
    )


def _dropped_at(kept_positions: Mapping[int, npt.NDArray[np.int32]], length: int) -> list[int | None]:
    """For each of the `length` tokens of a batch of one, the layer that dropped it, or None."""
    dropped_at: list[int | None] = [None] * length
    left = set(range(length))
    for layer, positions in sorted(kept_positions.items()):
        dropped = left.difference(positions[0].tolist())
        for position in dropped:
            dropped_at[position] = layer
        left -= dropped
    return dropped_at


def _segments(window: Window) -> list[Segment | None]:
    """For each token of the window the text that it is from, or None for a special token."""
    # Not by the encoding's sequence ids: `tokenizers` leaves None for the question where there is one window.
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


def _answer(context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput]) -> tuple[Answer, int]:
    """The best answer, and the index of the window that it is from: the surest one of those that hold its place."""
    answers = partial(  # with the defaults of QuestionAnswerer
        pipeline_answers, context, top_k=1, max_answer_len=15, handle_impossible_answer=False, align_to_words=True
    )
    best = [answers([window], [output])[0] for window, output in zip(windows, outputs, strict=True)]
    index = max(range(len(best)), key=lambda i: best[i]["score"])
    return best[index], index
