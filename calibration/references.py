"""What answers are scored against: those of the data, those that `full` believes in, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from dynamic_tinybert.runtime.evaluation import Evaluation, evaluate
from dynamic_tinybert.runtime.inference import run_windows
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.spans import pipeline_answers
from dynamic_tinybert.runtime.squad import Example, exact_match, f1
from dynamic_tinybert.runtime.windows import WindowTokenizer, window_size

MAX_ANSWER_TOKENS = 30  # as in `squad_answer`
_BELIEVED = 10
_BATCH = 8
_GROUP = 256


@dataclass(frozen=True)
class References:
    """Questions with what counts as a right answer.

    Attributes:
        examples: The questions. Those that lack answers have the one of `full` instead.
        believed: The likeliest answers to each question by `full`, with shares that sum to 1; a score is the one
            expected if the right answer were drawn from them. A change between two answers that `full` finds equally
            likely costs nothing, as it costs no F1 on average. Empty if nothing is scored by them.
        scored_by: What `evaluate` scores by: the data's answers, agreement with what `full` believes, or the mean of
            both scores.
    """

    examples: Sequence[Example]
    believed: Sequence[Sequence[tuple[str, float]]]
    scored_by: Literal["answers", "agreement", "answers and agreement"]

    def evaluate(
        self, model: LengthAdaptiveModel, length_config: LengthConfig, *, batch_size: int, span: slice = slice(None)
    ) -> Evaluation:
        """Answer the questions of a span, by default all, and score the answers; see `runtime.evaluation.evaluate`."""
        result = evaluate(model, self.examples[span], length_config=length_config, batch_size=batch_size)
        if not self.believed:
            return result
        believed = self.believed[span]
        question_f1 = _expected(f1, result.predictions, believed)
        question_exact_match = _expected(exact_match, result.predictions, believed)
        if self.scored_by != "agreement":
            question_f1 = _means(question_f1, result.question_f1)
            question_exact_match = _means(question_exact_match, result.question_exact_match)
        return replace(
            result,
            f1=fmean(question_f1),
            exact_match=fmean(question_exact_match),
            question_f1=question_f1,
            question_exact_match=question_exact_match,
        )


def references(model: LengthAdaptiveModel, examples: Sequence[Example], *, to_choose: bool = False) -> References:
    """Take the answers of the data if every question has one, else ask `full`.

    Args:
        model: The model.
        examples: The questions.
        to_choose: Ask `full` in any case. Configurations that are chosen by the data's answers alone are those that
            these answers happen to favour; what `full` believes varies half as much, but exaggerates losses.
    """
    answered = all(example.answers for example in examples)
    if answered and not to_choose:
        return References(examples, (), "answers")
    groups = (examples[first : first + _GROUP] for first in range(0, len(examples), _GROUP))
    believed = [answers for group in groups for answers in _ask(model, group)]
    if answered:
        return References(examples, believed, "answers and agreement")
    agreed = [replace(example, answers=(answers[0][0],)) for example, answers in zip(examples, believed, strict=True)]
    return References(agreed, believed, "agreement")


def _ask(model: LengthAdaptiveModel, examples: Sequence[Example]) -> list[list[tuple[str, float]]]:
    tokenize = WindowTokenizer(model.tokenizer_file)
    max_seq_len, doc_stride = window_size(model.max_length)
    windows = [tokenize(e.question, e.context, max_seq_len=max_seq_len, doc_stride=doc_stride) for e in examples]
    outputs = run_windows(model, windows, length_config="full", batch_size=_BATCH)
    believed = []
    for example, own_windows, own_outputs in zip(examples, windows, outputs, strict=True):
        answers = pipeline_answers(
            example.context,
            own_windows,
            own_outputs,
            top_k=_BELIEVED,
            max_answer_len=MAX_ANSWER_TOKENS,
            handle_impossible_answer=False,
            align_to_words=False,
            merge="text",  # it is texts that are compared
        )
        total = sum(answer["score"] for answer in answers)
        believed.append([(answer["answer"], answer["score"] / total) for answer in answers])
    return believed


def _expected(
    metric: Callable[[str, Sequence[str]], float],
    predictions: Sequence[str],
    believed: Sequence[Sequence[tuple[str, float]]],
) -> tuple[float, ...]:
    return tuple(
        sum(share * metric(prediction, [answer]) for answer, share in answers)
        for prediction, answers in zip(predictions, believed, strict=True)
    )


def _means(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(fmean, zip(first, second, strict=True)))
