"""SQuAD v2's metrics, for answerable and unanswerable questions, and the choice of a no-answer threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from .squad import exact_match, f1, normalize

_ROUNDING = 1e-6  # of sums of percents: a sum must be larger by more than this to be better
_MARGIN = 1.0  # scores differ slightly from batch to batch, and this threshold must stay below every score


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """The score that the best non-empty answer to a question would get.

    Attributes:
        exact: Exact match, 100 or 0.
        f1: F1, 0 to 100.
        has_answer: Whether the question has an answer; if not, only the empty answer is right.
        no_answer_score: The logits of the empty answer minus those of the best other one (see `no_answer`); None for a
            question that the model could not read, whose scores are 0 whatever the threshold.
    """

    exact: float
    f1: float
    has_answer: bool
    no_answer_score: float | None


def score_answer(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 in percent by SQuAD v2's rules.

    Args:
        prediction: An answer; empty for no answer.
        answers: The right answers; empty for an unanswerable question.
    """
    right = [answer for answer in answers if normalize(answer)]
    if not right or not normalize(prediction):  # no words: right if both have none
        score = 0.0 if right or normalize(prediction) else 100.0
        return score, score
    return exact_match(prediction, right), f1(prediction, right)


def figures(questions: Sequence[ScoredAnswer], threshold: float) -> dict[str, float]:
    """The figures of SQuAD v2's evaluation in percent, under its names.

    ``best_exact`` and ``best_f1`` are reached with the thresholds ``best_exact_thresh`` and ``best_f1_thresh``. If only
    empty answers are best, the official script reports a threshold of 0; here it is a threshold below all scores.

    Args:
        questions: At least one.
        threshold: Questions whose no-answer score is above it get the empty answer.
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
    """The best mean score that any threshold gives, and the lowest threshold that gives it.

    Args:
        questions: At least one.
        metric: ``exact`` or ``f1``.
    """
    answered = sorted((q for q in questions if q.no_answer_score is not None), key=_no_answer_score)
    total = sum(0.0 if question.has_answer else 100.0 for question in answered)  # all answers empty
    lowest = _no_answer_score(answered[0]) if answered else 0.0
    best, threshold = total, 0.0 if lowest > 0 else lowest - _MARGIN
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
