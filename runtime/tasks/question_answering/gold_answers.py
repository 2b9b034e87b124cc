"""What answers are scored against: those of the data, those that `full` believes in, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .answers import pipeline_answers
from .evaluation import MAX_ANSWER_LEN, Evaluation, evaluate
from .example import Example
from .inference import run_windows
from .no_answer import answer_and_no_answer_score
from .options import AnswerOptions
from .squad import exact_match, f1
from .squad_v2 import Scored, best_threshold, score_answer
from .windowing import Windowing

_BELIEVED = 10
_BATCH = 8
_GROUP = 256
_BELIEF_OPTIONS = AnswerOptions(
    top_k=_BELIEVED,
    max_answer_len=MAX_ANSWER_LEN,
    align_to_words=False,
    merge="text",  # it is texts that are compared
)


Belief = Sequence[tuple[str, float]]
"""The likeliest answers to a question by `full`, with shares that sum to 1; the empty one alone if it gives none."""


@dataclass(frozen=True)
class References:
    """Questions with what counts as a right answer.

    Attributes:
        examples: The questions. Those that lack answers have the one of `full` instead.
        believed: For each question what `full` believes, or nothing where it is not scored by that; a score is the one
            expected if the right answer were drawn from it. A change between two answers that `full` finds equally
            likely costs nothing, as it costs no F1 on average. Empty if no question is scored by it.
        answered: Whether the data says of a question what is right: an answer, or none for an unanswerable one. If so,
            and if there is a belief, too, the score is the mean of both.
        scored_by: What `evaluate` scores by, over all questions.
        no_answer_threshold: A score of no answer above it makes an answer empty; None if no question is unanswerable.
    """

    examples: Sequence[Example]
    believed: Sequence[Belief]
    answered: Sequence[bool]
    scored_by: Literal["answers", "agreement", "answers and agreement"]
    no_answer_threshold: float | None

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
        if not self.believed:
            return result
        question_f1, question_exact_match = (
            tuple(
                _score(metric, *question)
                for question in zip(result.predictions, by_data, self.believed[span], self.answered[span], strict=True)
            )
            for metric, by_data in ((f1, result.question_f1), (exact_match, result.question_exact_match))
        )
        return replace(
            result,
            f1=fmean(question_f1),
            exact_match=fmean(question_exact_match),
            question_f1=question_f1,
            question_exact_match=question_exact_match,
        )


def references(
    model: LengthAdaptiveModel,
    examples: Sequence[Example],
    *,
    to_choose: bool = False,
    no_answer_threshold: float | None = None,
) -> References:
    """Take the answers of the data, and ask `full` where there is none.

    Args:
        model: The model.
        examples: The questions, all of which it can read.
        to_choose: Ask `full` in any case, but about unanswerable questions. Configurations that are chosen by the
            data's answers alone are those that these answers happen to favour; what `full` believes varies half as
            much, but exaggerates losses.
        no_answer_threshold: For data with unanswerable questions. By default the one that gives `full` the best F1 on
            these questions if `to_choose`, else that of the bundle, or else 0.

    Raises:
        DataError: `full` is asked, and cannot read a question.
    """
    answered = [bool(example.answers) or example.is_impossible for example in examples]
    unanswerable = any(example.is_impossible for example in examples)
    threshold: float | None = None
    if unanswerable:
        threshold = model.bundle.no_answer_threshold or 0.0 if no_answer_threshold is None else no_answer_threshold
    if all(answered) and not to_choose:
        return References(examples, (), answered, "answers", threshold)
    windows_of = Windowing.of(model)
    groups = (examples[first : first + _GROUP] for first in range(0, len(examples), _GROUP))
    asked = [of_full for group in groups for of_full in _ask(model, group, windows_of)]
    if unanswerable and to_choose and no_answer_threshold is None:
        scored = [of_full.if_answered for of_full, known in zip(asked, answered, strict=True) if known]
        threshold = best_threshold(scored, "f1")[1]
    believed: list[Belief] = []
    completed: list[Example] = []
    for example, of_full, known in zip(examples, asked, answered, strict=True):
        score = of_full.if_answered.no_answer_score
        belief = [("", 1.0)] if threshold is not None and score is not None and score > threshold else of_full.belief
        believed.append(() if example.is_impossible or (known and not to_choose) else belief)
        completed.append(example if known else replace(example, answers=(belief[0][0],)))
    by: Literal["agreement", "answers and agreement"] = "answers and agreement" if any(answered) else "agreement"
    return References(completed, believed, answered, by, threshold)


@dataclass(frozen=True)
class _OfFull:
    """What `full` says of a question."""

    belief: Belief
    if_answered: Scored


def _ask(model: LengthAdaptiveModel, examples: Sequence[Example], windows_of: Windowing) -> list[_OfFull]:
    windows = [windows_of(example) for example in examples]
    if not all(windows):
        raise windows_of.refuse_all("all of the questions")
    outputs = run_windows(model, windows, length_config="full", batch_size=_BATCH)
    asked = []
    for example, own_windows, own_outputs in zip(examples, windows, outputs, strict=True):
        answers = pipeline_answers(
            example.context,
            own_windows,
            own_outputs,
            _BELIEF_OPTIONS,
        )
        total = sum(answer["score"] for answer in answers)
        belief = [(answer["answer"], answer["score"] / total) for answer in answers]
        best, no_answer_score = answer_and_no_answer_score(
            example.context, own_windows, own_outputs, max_answer_len=MAX_ANSWER_LEN
        )
        scored = Scored(*score_answer(best, example.answers), not example.is_impossible, no_answer_score)
        asked.append(_OfFull(belief, scored))
    return asked


def _score(
    metric: Callable[[str, Sequence[str]], float], prediction: str, by_data: float, belief: Belief, answered: bool
) -> float:
    if not belief:
        return by_data
    expected = sum(
        share * (metric(prediction, [answer]) if answer else 100.0 * (not prediction)) for answer, share in belief
    )
    return fmean((by_data, expected)) if answered else expected
