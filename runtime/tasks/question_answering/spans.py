"""Search start and end scores for the best spans of tokens, and map these to characters of the context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from dynamic_tinybert.runtime.tasks.windows import Window

from .inference import WindowOutput
from .options import SQUAD


def best_spans(
    start: npt.NDArray[np.floating], end: npt.NDArray[np.floating], *, count: int, max_length: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.floating]]:
    """Find the spans with the largest sum of start and end score, best first; among equals, the earlier one first.

    Args:
        start: Score of each token as the first of a span, [n].
        end: Score of each token as the last of a span, [n].
        count: Maximum number of spans to return.
        max_length: Maximum length of a span in tokens.

    Returns:
        First token, last token (inclusive) and score of each span, three vectors of equal length.
    """
    width = min(max_length, len(start))
    padded = np.concatenate((end, np.full(width - 1, -np.inf, end.dtype)))
    scores = (start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)).ravel()
    count = min(count, len(scores) - width * (width - 1) // 2)  # fewer spans begin at the last tokens
    best = np.sort(np.argpartition(-scores, count - 1)[:count])
    best = best[np.argsort(-scores[best], kind="stable")]
    first, more = np.divmod(best, width)
    return first, first + more, scores[best]


def squad_answer(
    context: str,
    windows: Sequence[Window],
    outputs: Sequence[WindowOutput],
    *,
    max_answer_len: int = SQUAD.max_answer_len,
) -> str:
    """The text with the largest sum of start and end logits in any window, as in SQuAD's evaluation.

    SQuAD's scripts combine the 20 best starts with the 20 best ends (n-best 20). Searching all spans costs no more
    here and misses none.
    """
    return best_answer(context, windows, outputs, max_answer_len=max_answer_len)[0]


def best_answer(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int
) -> tuple[str, float]:
    """The answer of `squad_answer` and its sum of logits; the empty answer and -inf if there are no windows."""
    best_score, answer = -math.inf, ""
    for window, output in zip(windows, outputs, strict=True):
        start, end = output.start_logits[window.context], output.end_logits[window.context]
        (first,), (last,), (score,) = best_spans(start, end, count=1, max_length=max_answer_len)
        if score > best_score:
            offset = window.context.start
            begin, stop = characters(window.encoding, offset + first, offset + last, align_to_words=False)
            best_score, answer = float(score), context[begin:stop]
    return answer, best_score


def advantages(
    window: Window, output: WindowOutput, *, count: int, max_answer_len: int
) -> dict[tuple[int, int], float]:
    """The best spans of a window, by their characters, with their advantage over no answer.

    It is the sum of the span's start and end logits, minus that of [CLS].

    Args:
        window: The window.
        output: The model's output for it.
        count: Maximum number of spans.
        max_answer_len: Maximum length of a span in tokens.
    """
    start, end = output.start_logits[window.context], output.end_logits[window.context]
    nothing = float(output.start_logits[0]) + float(output.end_logits[0])
    spans = best_spans(start, end, count=count, max_length=max_answer_len)
    found = {}
    for first, last, score in zip(*(column.tolist() for column in spans), strict=True):
        tokens = (window.context.start + first, window.context.start + last)
        found[characters(window.encoding, *tokens, align_to_words=False)] = score - nothing
    return found


def characters(encoding: Encoding, first: int, last: int, *, align_to_words: bool) -> tuple[int, int]:
    """The characters of the context, end exclusive, of a span of tokens or of the words that it touches.

    Args:
        encoding: All tokens of a window.
        first: First token of the span.
        last: Last token of the span, inclusive.
        align_to_words: Widen the span to whole words.
    """
    if align_to_words:
        first_word, last_word = encoding.token_to_word(first), encoding.token_to_word(last)
        if first_word is not None and last_word is not None:
            return encoding.word_to_chars(first_word, 1)[0], encoding.word_to_chars(last_word, 1)[1]
    return encoding.token_to_chars(first)[0], encoding.token_to_chars(last)[1]
