"""From start and end logits to answers with scores, by the rules of transformers' question-answering pipeline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.windows import Window

from .inference import WindowOutput
from .options import AnswerOptions
from .spans import best_spans, characters


class Answer(TypedDict):
    """An answer in the form of transformers' pipeline.

    Attributes:
        score: Probability of the answer, in [0, 1]: the largest in any window. With `merge="text"` a sum of
            probabilities, which can exceed 1.
        start: First character of the answer in the context.
        end: End of the answer in the context in characters, exclusive.
        answer: The text of the context from `start` to `end`.
        length_config: With a budget or a limit on the loss in F1, and only then: the length configuration that ran.
        ms: Likewise: milliseconds from the call until all of its answers were there.
        budget_met: Likewise: whether `ms` is within the budget; None if the call had none.
    """

    score: float
    start: int
    end: int
    answer: str
    length_config: NotRequired[str]
    ms: NotRequired[float]
    budget_met: NotRequired[bool | None]


_Span = tuple[int, int, float]  # first character, last exclusive, probability
_Logs = npt.NDArray[np.float64]


def pipeline_answers(
    context: str,
    windows: Sequence[Window],
    outputs: Sequence[WindowOutput],
    options: AnswerOptions,
    priors: Sequence[float] | None = None,
) -> list[Answer]:
    """Choose at most `top_k` answers, best first.

    The probability of a span of tokens is the softmax of its start times the softmax of its end, over [CLS] and the
    window's part of the context, or, with `priors`, over all windows (`log_probabilities`). Spans of tokens that are
    aligned to the same words exclude each other, so their probabilities are added up. The score of an answer that
    several windows contain is the largest of its probabilities.
    With ``merge="text"``, answers with the same text, ignoring case, become one answer at the position that was found
    first, and its score is the sum over all positions and windows, as in transformers' pipeline.

    Args:
        context: The text that the windows were cut from.
        windows: All windows of one question.
        outputs: The model's output for each window.
        options: How answers are chosen. If the empty answer competes, its score is the smallest probability of [CLS]
            in any window.
        priors: For windows that compete, the logits that are added to each one's.
    """
    logs = log_probabilities(windows, outputs, priors)
    by_window = [list(_probable_spans(window, *own, options)) for window, own in zip(windows, logs, strict=True)]
    answers = _merged_texts(context, by_window) if options.merge == "text" else _merged_spans(context, by_window)
    if options.handle_impossible_answer:
        answers.append(empty_answer(windows, outputs, priors))
    return sorted(answers, key=lambda answer: answer["score"], reverse=True)[: options.top_k]


def in_pipeline_shape(answers: Sequence[list[Answer]]) -> Answer | list[Answer] | list[Answer | list[Answer]]:
    """The answers of each question without the lists that transformers' pipeline leaves out: those of one item."""
    results = [own[0] if len(own) == 1 else own for own in answers]
    return results[0] if len(results) == 1 else results


def empty_answer(
    windows: Sequence[Window], outputs: Sequence[WindowOutput], priors: Sequence[float] | None = None
) -> Answer:
    """The empty answer; its score is the smallest probability of [CLS] in any of the windows (at least one).

    With `priors` the windows have one [CLS] together, see `log_probabilities`.
    """
    logs = log_probabilities(windows, outputs, priors)
    return Answer(score=min(math.exp(start[0] + end[0]) for start, end in logs), start=0, end=0, answer="")


def log_probabilities(
    windows: Sequence[Window], outputs: Sequence[WindowOutput], priors: Sequence[float] | None
) -> list[tuple[_Logs, _Logs]]:
    """For each window, log probabilities of a start and of an end: of [CLS], first, and of the context tokens.

    Args:
        windows: The windows of one question.
        outputs: The model's output for each window.
        priors: If given, the probabilities are of all windows together, which share one [CLS]: its logit counts as 0
            in each window, those of others relative to it, and half of the window's prior is added. With one window
            whose prior is 0 that changes nothing.
    """
    sides = []
    for name in ("start_logits", "end_logits"):
        chosen = [
            np.concatenate((getattr(output, name)[:1], getattr(output, name)[window.context])).astype(np.float64)
            for window, output in zip(windows, outputs, strict=True)
        ]
        if priors is None:
            sides.append([_log_softmax(logits) for logits in chosen])
        else:
            relative = [logits[1:] - logits[0] + prior / 2 for logits, prior in zip(chosen, priors, strict=True)]
            all_logits = np.concatenate([[0.0], *relative])
            total = np.logaddexp.reduce(all_logits)
            sides.append([np.concatenate([[0.0], logits]) - total for logits in relative])
    return list(zip(*sides, strict=True))


def _probable_spans(window: Window, start: _Logs, end: _Logs, options: AnswerOptions) -> Iterator[_Span]:
    """The most probable spans of a window, best first; several may cover the same characters."""
    count = 2 * options.top_k + 10 if options.align_to_words else options.top_k  # aligning makes some of them equal
    spans = best_spans(start[1:], end[1:], count=count, max_length=options.max_answer_len)
    offset = window.context.start
    for first, last, score in zip(*(column.tolist() for column in spans), strict=True):
        place = characters(window.encoding, offset + first, offset + last, align_to_words=options.align_to_words)
        yield *place, math.exp(score)


def _merged_spans(context: str, by_window: Iterable[Iterable[_Span]]) -> list[Answer]:
    found: dict[tuple[int, int], float] = {}
    for spans in by_window:
        own: dict[tuple[int, int], float] = {}
        for begin, stop, probability in spans:
            own[begin, stop] = own.get((begin, stop), 0.0) + probability
        for place, probability in own.items():
            found[place] = max(found.get(place, 0.0), min(probability, 1.0))  # rounding may exceed 1
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


def _log_softmax(logits: _Logs) -> _Logs:
    shifted: _Logs = logits - logits.max()
    shifted -= np.log(np.exp(shifted).sum())
    return shifted
