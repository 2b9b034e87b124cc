"""Decide whether a question has no answer: the no-answer score of SQuAD v2, compared with a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dynamic_tinybert.runtime.tasks.windows import Window

from .answers import Answer, empty_answer, pipeline_answers
from .inference import WindowOutput
from .options import AnswerOptions
from .spans import advantages, best_answer


def answer_and_no_answer_score(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int
) -> tuple[str, float]:
    """The best answer that is not empty, and the no-answer score as SQuAD v2's scripts define it.

    The score is the smallest sum of the start and end logits of [CLS] in any window, minus the largest such sum of a
    span in any window.

    Args:
        context: The text that the windows were cut from.
        windows: All windows of the question, at least one.
        outputs: The model's output for each window.
        max_answer_len: Maximum length of an answer in tokens.
    """
    answer, score = best_answer(context, windows, outputs, max_answer_len=max_answer_len)
    return answer, min(float(output.start_logits[0]) + float(output.end_logits[0]) for output in outputs) - score


def answers_with_threshold(
    context: str,
    windows: Sequence[Window],
    outputs: Sequence[WindowOutput],
    options: AnswerOptions,
    threshold: float | None,
    priors: Sequence[float] | None = None,
) -> list[Answer]:
    """Choose answers as `pipeline_answers` does, but let a threshold decide whether the empty answer comes first.

    Args:
        context: The text that the windows were cut from.
        windows: All windows of the question.
        outputs: The model's output for each window.
        options: How answers are chosen.
        threshold: No-answer score above which the empty answer comes first. None ranks it by its probability. It has
            no effect unless the empty answer competes.
        priors: As for `pipeline_answers`; with them, the no-answer score is the smallest in any window, in which
            spans have the window's prior added.
    """
    if threshold is None or not options.handle_impossible_answer:
        return pipeline_answers(context, windows, outputs, options, priors)
    answers = pipeline_answers(context, windows, outputs, replace(options, handle_impossible_answer=False), priors)
    longest = options.max_answer_len
    if priors is None:
        _, score = answer_and_no_answer_score(context, windows, outputs, max_answer_len=longest)
    else:
        pairs = zip(windows, outputs, strict=True)
        best = [max(advantages(*pair, count=1, max_answer_len=longest).values()) for pair in pairs]
        score = -max(advantage + prior for advantage, prior in zip(best, priors, strict=True))
    return with_empty_answer(
        answers, empty_answer(windows, outputs, priors), wins=score > threshold, top_k=options.top_k
    )


def with_empty_answer(answers: Sequence[Answer], empty: Answer, *, wins: bool, top_k: int) -> list[Answer]:
    """Put the empty answer first if it `wins`, else behind the best of the others.

    The score of the empty answer remains its probability, so the first answer need not have the largest score.

    Args:
        answers: Other answers, best first.
        empty: The empty answer.
        wins: Whether the question has no answer.
        top_k: Maximum number of answers to return.
    """
    at = 0 if wins else max(1, sum(answer["score"] >= empty["score"] for answer in answers))
    return [*answers[:at], empty, *answers[at:]][:top_k]
