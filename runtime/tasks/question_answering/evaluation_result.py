"""The results of an evaluation over question-answering examples."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import fmean

from dynamic_tinybert.runtime.tasks.findings import Finding
from dynamic_tinybert.runtime.tasks.measured_run import MeasuredRun

from .squad_v2 import ScoredAnswer, figures


@dataclass(frozen=True)
class Evaluation(MeasuredRun):
    """The results of an evaluation: of the questions that were scored, in the order of the examples.

    Attributes:
        predictions: Answer to each question.
        question_f1: F1 of each question in percent.
        question_exact_match: 100 or 0 for each question.
        question_windows: Number of windows of each question.
        question_ms: Time of each question with all its windows, from text to answer, in milliseconds, without the
            questions that the model cannot read. Empty for a run in batches, which does not time single questions.
        no_answer_threshold: Questions whose no-answer score is above it were answered with the empty answer; None if no
            answer was allowed to be empty.
        if_answered: The score of each question by SQuAD v2's rules if its best non-empty answer is given.
        skipped: Questions that the model cannot read, which score 0, and questions without an answer, which were not
            scored.
    """

    predictions: tuple[str, ...]
    question_f1: tuple[float, ...]
    question_exact_match: tuple[float, ...]
    question_windows: tuple[int, ...]
    question_ms: tuple[float, ...]
    no_answer_threshold: float | None
    if_answered: tuple[ScoredAnswer, ...]
    skipped: tuple[Finding, ...]

    @property
    def f1(self) -> float:
        """Mean F1 in percent."""
        return fmean(self.question_f1)

    @property
    def exact_match(self) -> float:
        """Mean exact match in percent."""
        return fmean(self.question_exact_match)

    @property
    def scores(self) -> tuple[float, ...]:
        """F1 of each question in percent; length configurations are chosen by its mean."""
        return self.question_f1

    @property
    def means(self) -> dict[str, float]:
        """The means that a bundle's manifest records."""
        return {"f1": self.f1, "exact_match": self.exact_match}

    @property
    def example_ms(self) -> tuple[float, ...]:
        """Time of each question in milliseconds; empty for a run in batches."""
        return self.question_ms

    @property
    def squad_v2(self) -> dict[str, float] | None:
        """The figures of SQuAD v2's evaluation under its names; None if every question has an answer."""
        if all(question.has_answer for question in self.if_answered):
            return None
        return figures(self.if_answered, inf if self.no_answer_threshold is None else self.no_answer_threshold)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, means and percentiles included."""
        return super().to_dict() | {"squad_v2": self.squad_v2}
