"""Read questions for trainings, and turn them into training rows and into inputs that models are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import ReadExamples
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import TREATMENT, score_f1
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows
from dynamic_tinybert.runtime.tasks.question_answering.question_checks import read_questions
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window
from dynamic_tinybert.training.batches import TrainingRow
from dynamic_tinybert.training.reference_runs import run_reference
from dynamic_tinybert.training.tasks.task import ExampleScore

from .rows import answered_rows, read_answered

_BATCH_SIZE = 32


class QuestionReader:
    """Reads questions; see `Reader`.

    Args:
        windowing: Cuts questions and contexts into windows.
    """

    def __init__(self, windowing: Windowing) -> None:
        self._windowing = windowing

    def read_training(self, path: str | Path, limit: int | None, *, strict: bool) -> ReadExamples[Example]:
        """Read questions that have an answer with a position, or are unanswerable; see `read_answered`."""
        return read_answered(path, limit, self._windowing, strict=strict)

    def read_scored(self, path: str | Path, limit: int | None, *, strict: bool) -> ReadExamples[Example]:
        """Read questions that have an answer or are unanswerable; those that the model cannot read are included."""
        checked = read_questions(path, TREATMENT, self._windowing, limit=limit, strict=strict)
        scored = [example for example in checked.examples if example.answers or example.is_impossible]
        if not scored:
            raise DataError(f"{Path(path).name} holds no question with an answer, and scoring needs some")
        return ReadExamples(scored, checked.findings, checked.lines)

    def rows(self, examples: Sequence[Example]) -> list[TrainingRow]:
        """The rows of all windows; see `answered_rows`."""
        return answered_rows(self._windowing, examples)

    def scored_inputs(self, scored: Sequence[Example]) -> ScoredQuestions:
        """Questions with their windows; those that the model cannot read have none and score 0."""
        windows = [self._windowing(example) for example in scored]
        if not any(windows):
            raise self._windowing.refuse_all(f"any of the {len(scored)} questions")
        return ScoredQuestions(scored, windows)

    def inputs(self, examples: Sequence[Example]) -> list[Window]:
        """All windows of the questions that the model can read."""
        return self._windowing.windows(examples)


class ScoredQuestions:
    """Questions that models are measured on by F1.

    If some of them are unanswerable, all are scored by SQuAD v2's rules, with a no-answer threshold of 0.

    Args:
        questions: Questions with answers, or unanswerable.
        windows: The windows of each question.
    """

    metric = "F1"

    def __init__(self, questions: Sequence[Example], windows: Sequence[Sequence[Window]]) -> None:
        self._questions = questions
        self._windows = windows
        self._no_answer_threshold = 0.0 if any(question.is_impossible for question in questions) else None

    def scores(self, reference: ReferenceModel, length_config: LengthConfig) -> list[ExampleScore]:
        """Answer the questions and score the answers."""
        model = partial(_answer, reference)
        outputs = run_windows(model, self._windows, length_config=length_config, batch_size=_BATCH_SIZE)
        num_layers = reference.model.config.num_hidden_layers
        scores = []
        for question, windows, own in zip(self._questions, self._windows, outputs, strict=True):
            f1 = score_f1(question, windows, own, no_answer_threshold=self._no_answer_threshold)
            lengths = map(len, windows)
            kept = [(n, output.kept_by_layer(n, num_layers)) for n, output in zip(lengths, own, strict=True)]
            scores.append(ExampleScore(f1, kept))
        return scores


def _answer(
    reference: ReferenceModel, *, length_config: LengthConfig, **inputs: npt.NDArray[np.int64]
) -> QuestionAnsweringOutput:
    """Run the reference as if it were a `LengthAdaptiveModel`."""
    output = run_reference(reference, inputs, length_config)
    start, end = (output.outputs[name].cpu().numpy() for name in ("start_logits", "end_logits"))
    return QuestionAnsweringOutput(start, end, {layer: kept.int().cpu().numpy() for layer, kept in output.kept.items()})
