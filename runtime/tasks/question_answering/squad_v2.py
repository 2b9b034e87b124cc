"""SQuAD v2's metric: questions with an answer and without, and the threshold between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from .squad import exact_match, f1, normalize

_ROUNDING = 1e-6  # of sums of percents: an equal sum is no better
_CLEARLY = 1.0  # scores differ a little from batch to batch, and the threshold must stay below every score


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """How the best answer to a question scores, were it given.

    Attributes:
        exact: 100 or 0.
        f1: 0 to 100.
        has_answer: Whether the question has an answer; if not, only the empty one is right.
        no_answer_score: By how much no answer is likelier than the best one (see `no_answer`); None for a question
            that was not answered, whose scores are 0 whatever the threshold.
    """

    exact: float
    f1: float
    has_answer: bool
    no_answer_score: float | None


def score_answer(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 in percent, by v2's rules.

    Args:
        prediction: An answer, empty for none.
        answers: Those that are right; empty for an unanswerable question.
    """
    right = [answer for answer in answers if normalize(answer)]
    if not right or not normalize(prediction):  # no words: right if both have none
        score = 0.0 if right or normalize(prediction) else 100.0
        return score, score
    return exact_match(prediction, right), f1(prediction, right)


def figures(questions: Sequence[ScoredAnswer], threshold: float) -> dict[str, float]:
    """The figures of SQuAD v2's evaluation, by its names, in percent.

    ``best_exact`` and ``best_f1`` are those of the best thresholds, ``best_exact_thresh`` and ``best_f1_thresh``. The
    official script gives a threshold of 0 where it is best to answer nothing; here it is one that surely does that.

    Args:
        questions: At least one.
        threshold: A score of no answer above it makes the answer empty.
    """
    groups = {
        "": questions,
        "HasAns_": [question for question in questions if question.has_answer],
        "NoAns_": [question for question in questions if not question.has_answer],
    }
    found: dict[str, float] = {}
    for prefix, group in groups.items():
        if group:
            for metric in ("exact", "f1"):
                found[f"{prefix}{metric}"] = fmean(_at(question, metric, threshold) for question in group)
            found[f"{prefix}total"] = len(group)
    for metric in ("exact", "f1"):
        found[f"best_{metric}"], found[f"best_{metric}_thresh"] = best_threshold(questions, metric)
    return found


def best_threshold(questions: Sequence[ScoredAnswer], metric: str) -> tuple[float, float]:
    """The best mean that a threshold gives, and the lowest threshold that gives it.

    Args:
        questions: At least one.
        metric: ``exact`` or ``f1``.
    """
    answered = sorted((q for q in questions if q.no_answer_score is not None), key=_no_answer_score)
    total = sum(0.0 if question.has_answer else 100.0 for question in answered)  # all answers empty
    lowest = _no_answer_score(answered[0]) if answered else 0.0
    best, threshold = total, 0.0 if lowest > 0 else lowest - _CLEARLY
    for score, group in groupby(answered, key=_no_answer_score):
        total += sum(getattr(question, metric) - (0.0 if question.has_answer else 100.0) for question in group)
        if total > best + _ROUNDING:
            best, threshold = total, score
    return best / len(questions), threshold


def _at(question: ScoredAnswer, metric: str, threshold: float) -> float:
    if question.no_answer_score is not None and question.no_answer_score > threshold:
        return 0.0 if question.has_answer else 100.0
    return float(getattr(question, metric))


def _no_answer_score(question: ScoredAnswer) -> float:
    assert question.no_answer_score is not None
    return question.no_answer_score
