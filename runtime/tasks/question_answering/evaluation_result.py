"""The results of an evaluation over question-answering examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from math import inf
from statistics import fmean

import numpy as np

from .findings import Finding
from .squad_v2 import ScoredAnswer, figures


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        f1: Mean F1 in percent.
        exact_match: Mean exact match in percent.
        ids: The ids of the questions that were scored, in the order of the examples. All other values per question are
            in the same order.
        predictions: Answer to each question.
        question_f1: F1 of each question in percent.
        question_exact_match: 100 or 0 for each question.
        question_windows: Number of windows of each question.
        question_ms: Time of each question with all its windows, from text to answer, in milliseconds, without the
            questions that the model cannot read. Empty for a run in batches, which does not time single questions.
        window_lengths: Number of real tokens of each window, question by question.
        window_kept: For each window, the number of tokens that each layer passed on.
        mean_macs: Mean executed multiply-accumulates of a window.
        no_answer_threshold: Questions whose no-answer score is above it were answered with the empty answer; None if no
            answer was allowed to be empty.
        if_answered: The score of each question by SQuAD v2's rules if its best non-empty answer is given.
        skipped: Questions that the model cannot read, which score 0, and questions without an answer, which were not
            scored.
    """

    f1: float
    exact_match: float
    ids: tuple[str, ...]
    predictions: tuple[str, ...]
    question_f1: tuple[float, ...]
    question_exact_match: tuple[float, ...]
    question_windows: tuple[int, ...]
    question_ms: tuple[float, ...]
    window_lengths: tuple[int, ...]
    window_kept: tuple[tuple[int, ...], ...]
    mean_macs: float
    no_answer_threshold: float | None
    if_answered: tuple[ScoredAnswer, ...]
    skipped: tuple[Finding, ...]

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
        """Time of each question; see `question_ms`."""
        return self.question_ms

    @property
    def squad_v2(self) -> dict[str, float] | None:
        """The figures of SQuAD v2's evaluation under its names; None if every question has an answer."""
        if all(question.has_answer for question in self.if_answered):
            return None
        return figures(self.if_answered, inf if self.no_answer_threshold is None else self.no_answer_threshold)

    @property
    def mean_length(self) -> float:
        """Mean number of real tokens of a window."""
        return fmean(self.window_lengths)

    @property
    def mean_kept(self) -> tuple[float, ...]:
        """For each layer, the mean number of tokens of a window that it passed on."""
        return tuple(map(fmean, zip(*self.window_kept, strict=True)))

    def latency_ms(self, percentile: float) -> float | None:
        """A percentile (0 to 100) of the questions' times, in milliseconds; None for a run in batches."""
        return float(np.percentile(self.question_ms, percentile)) if self.question_ms else None

    def join(self, others: Sequence[Evaluation]) -> Evaluation:
        """One evaluation of the examples of this one and of others, which ran with the same options."""
        parts = [self, *others]
        rows = {
            field.name: tuple(chain.from_iterable(getattr(part, field.name) for part in parts))
            for field in fields(Evaluation)
            if field.name not in ("f1", "exact_match", "mean_macs", "no_answer_threshold")
        }
        return Evaluation(
            f1=fmean(rows["question_f1"]),
            exact_match=fmean(rows["question_exact_match"]),
            mean_macs=fmean([part.mean_macs for part in parts], [len(part.window_lengths) for part in parts]),
            no_answer_threshold=self.no_answer_threshold,
            **rows,
        )

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, means and percentiles included."""
        return asdict(self) | {
            "mean_length": self.mean_length,
            "mean_kept": self.mean_kept,
            "latency_p50_ms": self.latency_ms(50),
            "latency_p95_ms": self.latency_ms(95),
            "squad_v2": self.squad_v2,
        }
