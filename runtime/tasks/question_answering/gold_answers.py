"""The labels that answers are scored against: the data's gold answers, `full`'s answers as soft labels, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .answers import pipeline_answers
from .evaluation import MAX_ANSWER_LEN, evaluate
from .evaluation_result import Evaluation
from .example import Example
from .inference import run_windows
from .no_answer import answer_and_no_answer_score
from .options import AnswerOptions
from .squad import exact_match, f1
from .squad_v2 import ScoredAnswer, best_threshold, score_answer
from .windowing import Windowing

_BATCH = 8
_GROUP = 256
_TEACHER_OPTIONS = AnswerOptions(
    top_k=10,
    max_answer_len=MAX_ANSWER_LEN,
    align_to_words=False,
    merge="text",  # because answers are compared by their text
)

SoftLabels = Sequence[tuple[str, float]]
"""The most probable answers of `full` with probabilities that sum to 1; only the empty answer if `full` gives none."""


@dataclass(frozen=True)
class GoldAnswers:
    """Questions and the answers that count as right.

    Attributes:
        examples: The questions. Questions without an answer in the data have the most probable answer of `full`.
        soft_labels: For each question the answers of `full` with their probabilities; empty for a question that is not
            scored by them. The score is the expected score if the right answer were drawn from this distribution, so
            a configuration may swap two answers that `full` finds equally probable: on average, that costs no F1. The
            whole sequence is empty if no question is scored by soft labels.
        answered: For each question, whether the data has a label: an answer, or that it is unanswerable. The score of a
            question with a label and soft labels is the mean of both scores.
        scored_by: The kind of labels that the questions have.
        no_answer_threshold: No-answer score above which an answer is empty; None if no question is unanswerable.
    """

    examples: Sequence[Example]
    soft_labels: Sequence[SoftLabels]
    answered: Sequence[bool]
    scored_by: Literal["answers", "agreement", "answers and agreement"]
    no_answer_threshold: float | None

    @property
    def lines(self) -> tuple[str, ...]:
        """A message about the no-answer threshold, if there is one."""
        if self.no_answer_threshold is None:
            return ()
        return (f"The no-answer threshold is {self.no_answer_threshold:.3f}, which is best for the F1 of full",)

    @property
    def manifest(self) -> Mapping[str, float]:
        """The no-answer threshold, if there is one."""
        return {} if self.no_answer_threshold is None else {"no_answer_threshold": self.no_answer_threshold}

    def evaluate(
        self, model: LengthAdaptiveModel, length_config: LengthConfig, *, batch_size: int, span: slice = slice(None)
    ) -> Evaluation:
        """Answer the questions of a span, by default all, and score the answers; see `evaluation.evaluate`."""
        result = evaluate(
            model,
            self.examples[span],
            length_config=length_config,
            batch_size=batch_size,
            no_answer_threshold=self.no_answer_threshold,
        )
        if not self.soft_labels:
            return result
        question_f1, question_exact_match = (
            tuple(
                _score(metric, *question)
                for question in zip(
                    result.predictions, by_data, self.soft_labels[span], self.answered[span], strict=True
                )
            )
            for metric, by_data in ((f1, result.question_f1), (exact_match, result.question_exact_match))
        )
        return replace(result, question_f1=question_f1, question_exact_match=question_exact_match)

    def for_reporting(self, model: LengthAdaptiveModel, examples: Sequence[Example]) -> GoldAnswers:
        """Other questions, scored by the data's answers where there are any, with the same no-answer threshold."""
        return gold_answers(model, examples, no_answer_threshold=self.no_answer_threshold)


def gold_answers(
    model: LengthAdaptiveModel,
    examples: Sequence[Example],
    *,
    to_choose: bool = False,
    no_answer_threshold: float | None = None,
) -> GoldAnswers:
    """Take the data's answers as labels, and those of `full` for questions without an answer in the data.

    Args:
        model: The model.
        examples: The questions, all of which the model can read.
        to_choose: Also score answerable questions by soft labels, to choose configurations by the scores. The data's
            answers alone would favour configurations that happen to match them; scores by soft labels vary half as
            much, but exaggerate losses.
        no_answer_threshold: For data with unanswerable questions. By default the one that gives `full` the best F1 on
            these questions if `to_choose`, else that of the bundle, or else 0.

    Raises:
        DataError: The answers of `full` are needed, but the model cannot read a question.
    """
    answered = [bool(example.answers) or example.is_impossible for example in examples]
    unanswerable = any(example.is_impossible for example in examples)
    threshold: float | None = None
    if unanswerable:
        threshold = model.bundle.no_answer_threshold or 0.0 if no_answer_threshold is None else no_answer_threshold
    if all(answered) and not to_choose:
        return GoldAnswers(examples, (), answered, "answers", threshold)
    windows_of = Windowing.of(model)
    groups = (examples[first : first + _GROUP] for first in range(0, len(examples), _GROUP))
    by_full = [of_full for group in groups for of_full in _teacher_answers(model, group, windows_of)]
    if unanswerable and to_choose and no_answer_threshold is None:
        scored = [of_full.if_answered for of_full, known in zip(by_full, answered, strict=True) if known]
        threshold = best_threshold(scored, "f1")[1]
    soft_labels: list[SoftLabels] = []
    completed: list[Example] = []
    for example, of_full, known in zip(examples, by_full, answered, strict=True):
        score = of_full.if_answered.no_answer_score
        labels = of_full.soft_labels
        if threshold is not None and score is not None and score > threshold:
            labels = [("", 1.0)]
        soft_labels.append(() if example.is_impossible or (known and not to_choose) else labels)
        completed.append(example if known else replace(example, answers=(labels[0][0],)))
    scored_by: Literal["agreement", "answers and agreement"] = "answers and agreement" if any(answered) else "agreement"
    return GoldAnswers(completed, soft_labels, answered, scored_by, threshold)


@dataclass(frozen=True)
class _TeacherAnswer:
    """The answers of `full` to a question."""

    soft_labels: SoftLabels
    if_answered: ScoredAnswer


def _teacher_answers(
    model: LengthAdaptiveModel, examples: Sequence[Example], windows_of: Windowing
) -> list[_TeacherAnswer]:
    windows = [windows_of(example) for example in examples]
    if not all(windows):
        raise windows_of.refuse_all("all of the questions")
    outputs = run_windows(model, windows, length_config="full", batch_size=_BATCH)
    found = []
    for example, own_windows, own_outputs in zip(examples, windows, outputs, strict=True):
        answers = pipeline_answers(
            example.context,
            own_windows,
            own_outputs,
            _TEACHER_OPTIONS,
        )
        total = sum(answer["score"] for answer in answers)
        soft_labels = [(answer["answer"], answer["score"] / total) for answer in answers]
        best, no_answer_score = answer_and_no_answer_score(
            example.context, own_windows, own_outputs, max_answer_len=MAX_ANSWER_LEN
        )
        scored = ScoredAnswer(*score_answer(best, example.answers), not example.is_impossible, no_answer_score)
        found.append(_TeacherAnswer(soft_labels, scored))
    return found


def _score(
    metric: Callable[[str, Sequence[str]], float],
    prediction: str,
    by_data: float,
    soft_labels: SoftLabels,
    answered: bool,
) -> float:
    """The score of an answer by the data, its expected score by soft labels, or the mean of both."""
    if not soft_labels:
        return by_data
    expected = sum(
        probability * (metric(prediction, [answer]) if answer else 100.0 * (not prediction))
        for answer, probability in soft_labels
    )
    return fmean((by_data, expected)) if answered else expected
