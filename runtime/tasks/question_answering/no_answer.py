"""Whether a question has no answer: by SQuAD v2's score, against a threshold."""

from __future__ import annotations

from collections.abc import Sequence

from .inference import WindowOutput
from .spans import Answer, best_answer, empty_answer
from .windows import Window


def answer_and_no_answer_score(
    context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int
) -> tuple[str, float]:
    """The best answer that is not empty, and by how much none is likelier, in sums of a start and an end logit.

    As SQuAD v2's scripts have it: the least sum of [CLS] in any window, minus the largest sum of a span in any.

    Args:
        context: The text that the windows were cut from.
        windows: All windows of the question, at least one.
        outputs: The model's output for each.
        max_answer_len: Most tokens of an answer.
    """
    answer, score = best_answer(context, windows, outputs, max_answer_len=max_answer_len)
    return answer, min(float(output.start_logits[0]) + float(output.end_logits[0]) for output in outputs) - score


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
        answers: Best first, the empty one not among them.
        windows: All windows of the question.
        outputs: The model's output for each.
        wins: Whether the question has no answer.
        top_k: Most answers to give.
    """
    empty = empty_answer(windows, outputs)
    at = 0 if wins else max(1, sum(answer["score"] >= empty["score"] for answer in answers))
    return [*answers[:at], empty, *answers[at:]][:top_k]
