"""From start and end logits to answers: transformers' question-answering contract, and SQuAD's evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict, get_args

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .inference import WindowOutput
from .windows import Window

Merge = Literal["span", "text"]
"""What makes two answers one: the same characters of the context, or the same text."""


class Answer(TypedDict):
    """An answer as transformers' pipeline gives it.

    Attributes:
        score: Its probability by the window over the context that is surest of it, in [0, 1]; with `merge="text"` a
            sum, which can pass 1.
        start: Where the answer begins in the context, in characters.
        end: Where it ends, exclusive.
        answer: That text of the context.
    """

    score: float
    start: int
    end: int
    answer: str


def best_spans(
    start: npt.NDArray[np.floating], end: npt.NDArray[np.floating], *, count: int, max_length: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.floating]]:
    """Find the spans with the largest sum of start and end score, best first.

    Args:
        start: Score of each token as the first of a span [n].
        end: Score of each token as the last of a span [n].
        count: How many spans; fewer if there are not as many.
        max_length: Most tokens of a span.

    Returns:
        First token, last token (inclusive) and score of each span.
    """
    width = min(max_length, len(start))
    padded = np.concatenate((end, np.full(width - 1, -np.inf, end.dtype)))
    scores = (start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)).ravel()
    count = min(count, len(scores) - width * (width - 1) // 2)  # the last tokens begin fewer spans
    best = np.sort(np.argpartition(-scores, count - 1)[:count])
    best = best[np.argsort(-scores[best], kind="stable")]
    first, more = np.divmod(best, width)
    return first, first + more, scores[best]


def pipeline_answers(
    context: str,
    windows: Sequence[Window],
    outputs: Sequence[WindowOutput],
    *,
    top_k: int,
    max_answer_len: int,
    handle_impossible_answer: bool,
    align_to_words: bool,
    merge: Merge = "span",
) -> list[Answer]:
    """At most `top_k` answers, best first, by the rules of transformers' question-answering pipeline.

    The probability of a span of tokens is the softmax of its start times the softmax of its end, over [CLS] and the
    window's part of the context. Spans of tokens that are aligned to the same words exclude each other: their
    probabilities are added up. What several windows see counts once, as the surest of them has it.

    Args:
        context: The text that the windows were cut from.
        windows: All windows of one question.
        outputs: The model's output for each.
        top_k: Most answers.
        max_answer_len: Most tokens of an answer.
        handle_impossible_answer: Let the empty answer take part, with the least score of [CLS] in any window.
        align_to_words: Widen answers to whole words.
        merge: "text" makes answers of the same text but for case one answer, at the place that came first, whose
            score is the sum over all places and windows, as in transformers' pipeline.

    Raises:
        InvalidInputError: `merge` is neither.
    """
    if merge not in get_args(Merge):
        raise InvalidInputError(f"merge must be 'span' or 'text', not {merge!r}")
    candidates = 2 * top_k + 10 if align_to_words else top_k  # aligning makes some of them equal
    by_window: list[list[_Span]] = []
    for window, output in zip(windows, outputs, strict=True):
        start = _log_softmax(output.start_logits, window.context)
        end = _log_softmax(output.end_logits, window.context)
        spans = best_spans(start[1:], end[1:], count=candidates, max_length=max_answer_len)
        by_window.append([])
        for first, last, score in zip(*(column.tolist() for column in spans), strict=True):
            begin, stop = _characters(
                window.encoding, window.context.start + first, window.context.start + last, align_to_words
            )
            by_window[-1].append((begin, stop, math.exp(score)))
    answers = _merged_texts(context, by_window) if merge == "text" else _merged_spans(context, by_window)
    if handle_impossible_answer:
        answers.append(empty_answer(windows, outputs))
    return sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]


def empty_answer(windows: Sequence[Window], outputs: Sequence[WindowOutput]) -> Answer:
    """The empty answer; its score is the least probability of [CLS] in any of the windows, which are at least one."""
    probability = min(
        math.exp(
            _log_softmax(output.start_logits, window.context)[0] + _log_softmax(output.end_logits, window.context)[0]
        )
        for window, output in zip(windows, outputs, strict=True)
    )
    return Answer(score=probability, start=0, end=0, answer="")


_Span = tuple[int, int, float]  # first character, last exclusive, probability


def _merged_spans(context: str, by_window: Iterable[Iterable[_Span]]) -> list[Answer]:
    found: dict[tuple[int, int], float] = {}
    for spans in by_window:
        own: dict[tuple[int, int], float] = {}
        for begin, stop, probability in spans:
            own[begin, stop] = own.get((begin, stop), 0.0) + probability
        for place, probability in own.items():
            found[place] = max(found.get(place, 0.0), min(probability, 1.0))  # rounding may pass 1
    return [
        Answer(score=probability, start=begin, end=stop, answer=context[begin:stop])
        for (begin, stop), probability in found.items()
    ]


def _merged_texts(context: str, by_window: Iterable[Iterable[_Span]]) -> list[Answer]:
    found: dict[str, Answer] = {}
    for spans in by_window:
        for begin, stop, probability in spans:
            text = context[begin:stop]
            answer = found.setdefault(text.lower(), Answer(score=0.0, start=begin, end=stop, answer=text))
            answer["score"] += probability
    return list(found.values())


def squad_answer(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int = 30
) -> str:
    """Find the text with the largest sum of start and end logits in any window, as SQuAD evaluation does.

    Scripts for SQuAD combine the 20 best starts with the 20 best ends (n-best 20); searching all spans costs no
    more here and leaves out none.
    """
    return best_answer(context, windows, outputs, max_answer_len=max_answer_len)[0]


def best_answer(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int
) -> tuple[str, float]:
    """The answer of `squad_answer`, and its sum of logits; the empty one and -inf without a window."""
    best_score, answer = -math.inf, ""
    for window, output in zip(windows, outputs, strict=True):
        start, end = output.start_logits[window.context], output.end_logits[window.context]
        (first,), (last,), (score,) = best_spans(start, end, count=1, max_length=max_answer_len)
        if score > best_score:
            offset = window.context.start
            begin, stop = _characters(window.encoding, offset + first, offset + last, align_to_words=False)
            best_score, answer = float(score), context[begin:stop]
    return answer, best_score


def _log_softmax(logits: npt.NDArray[np.float32], context: slice) -> npt.NDArray[np.float64]:
    """Logarithms of the probabilities of [CLS], first, and of the tokens of the context."""
    chosen: npt.NDArray[np.float64] = np.concatenate((logits[:1], logits[context])).astype(np.float64)
    chosen -= chosen.max()
    chosen -= np.log(np.exp(chosen).sum())
    return chosen


def _characters(encoding: Encoding, first: int, last: int, align_to_words: bool) -> tuple[int, int]:
    if align_to_words:
        first_word, last_word = encoding.token_to_word(first), encoding.token_to_word(last)
        if first_word is not None and last_word is not None:
            return encoding.word_to_chars(first_word, 1)[0], encoding.word_to_chars(last_word, 1)[1]
    return encoding.token_to_chars(first)[0], encoding.token_to_chars(last)[1]
