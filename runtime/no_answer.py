"""Whether a question has no answer: by SQuAD v2's score, against a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .inference import WindowOutput
from .spans import Answer, best_answer
from .windows import Window


def no_answer_score(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int
) -> float:
    """By how much no answer is likelier than the best one, in sums of a start and an end logit.

    As SQuAD v2's scripts have it: the least sum of [CLS] in any window, minus the largest sum of a span in any.
    """
    return least_cls_score(outputs) - best_answer(context, windows, outputs, max_answer_len=max_answer_len)[1]


def least_cls_score(outputs: Sequence[WindowOutput]) -> float:
    """The least sum of the start and end logits of [CLS] in any window of a question."""
    return min(float(output.start_logits[0]) + float(output.end_logits[0]) for output in outputs)


def with_empty_answer(
    answers: Sequence[Answer],
    windows: Sequence[Window],
    outputs: Sequence[WindowOutput],
    *,
    wins: bool,
    top_k: int,
) -> list[Answer]:
    """Put the empty answer first if it `wins`, else behind the best other one.

    Its score stays its probability, so that the first answer need not have the largest.

    Args:
        answers: Best first, at most `top_k`; the empty one may be among them.
        windows: All windows of the question.
        outputs: The model's output for each.
        wins: Whether the question has no answer.
        top_k: Most answers to give.
    """
    others = [answer for answer in answers if answer["answer"]]
    empty = Answer(score=_empty_probability(windows, outputs), start=0, end=0, answer="")
    at = 0 if wins else max(1, sum(answer["score"] >= empty["score"] for answer in others))
    return [*others[:at], empty, *others[at:]][:top_k]


def _empty_probability(windows: Sequence[Window], outputs: Sequence[WindowOutput]) -> float:
    """The least product of the probabilities of [CLS] as start and as end in any window, over it and the context."""
    return min(
        _cls_probability(output.start_logits, window.context) * _cls_probability(output.end_logits, window.context)
        for window, output in zip(windows, outputs, strict=True)
    )


def _cls_probability(logits: npt.NDArray[np.float32], context: slice) -> float:
    over_cls = logits[context].astype(np.float64) - float(logits[0])
    with np.errstate(over="ignore"):
        return float(1 / (1 + np.exp(over_cls).sum()))
