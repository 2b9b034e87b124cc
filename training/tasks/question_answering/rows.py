"""Training rows for question answering: windows whose labels are the positions of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.measure import ReadExamples
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.findings import Kind
from dynamic_tinybert.runtime.tasks.question_answering.question_checks import read_questions
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window
from dynamic_tinybert.training.batches import TrainingRow

_TREATMENT = {
    Kind.UNREADABLE: "skipped",
    Kind.WITHOUT_ANSWER: "skipped",
    Kind.MISPLACED: "skipped, unless another answer has a position",
    Kind.PUT_RIGHT: "corrected",
    Kind.WITHOUT_PLACE: "corrected where its text occurs once, else skipped",
    Kind.SAME_ID: "used like any other",
}


def read_answered(
    path: str | Path, limit: int | None = None, windowing: Windowing | None = None, *, strict: bool = False
) -> ReadExamples[Example]:
    """Read the questions of a file that can be trained on: each has an answer with a position, or is unanswerable.

    Args:
        path: A file that `read_squad` reads.
        limit: Read only the first `limit` questions.
        windowing: Decides which questions the model can read; the others are skipped.
        strict: Refuse the file if it holds a faulty question.

    Raises:
        DataError: The file cannot be read, no question can be trained on, or `strict` refuses one.
        InvalidInputError: `limit` is less than 1.
    """
    name = Path(path).name
    checked = read_questions(path, _TREATMENT, windowing, limit=limit, strict=strict)
    examples = [e for e in checked.readable if e.is_impossible or _characters_of_answer(e) is not None]
    if not examples:
        raise DataError(f"{name} holds no question to train on; {checked.findings[0]}")
    return ReadExamples(examples, checked.findings, checked.lines)


def answered_rows(windowing: Windowing, examples: Sequence[Example]) -> list[TrainingRow]:
    """A row for each window of the questions; questions that the model cannot read have none.

    The labels `start_positions` and `end_positions` are the first and the last token of the first answer that has a
    position. Both are 0, the position of [CLS], in windows that do not contain the whole answer, and in all windows of
    unanswerable questions.

    Args:
        windowing: Cuts questions and contexts into windows.
        examples: Questions from `read_answered`.

    Raises:
        DataError: The model can read none of the questions.
    """
    rows: list[TrainingRow] = []
    for example, windows in windowing.readable(examples):
        answer = _characters_of_answer(example)
        for window in windows:
            start, end = (0, 0) if answer is None else _tokens_of_answer(window, *answer)
            labels = {"start_positions": start, "end_positions": end}
            rows.append(TrainingRow(np.array(window.encoding.ids, np.int32), window.context.start, labels))
    if not rows:
        raise windowing.refuse_all(f"any of the {len(examples)} questions")
    return rows


def _characters_of_answer(example: Example) -> tuple[int, int] | None:
    """Start and end, in characters of the context, of the first answer that has a position; None if none has."""
    for answer, start in zip(example.answers, example.answer_starts, strict=False):
        if isinstance(start, int):
            begin = start + len(answer) - len(answer.lstrip())  # tokens contain no white space
            return begin, begin + len(answer.strip())
    return None


def _tokens_of_answer(window: Window, begin: int, stop: int) -> tuple[int, int]:
    """First and last token of an answer; (0, 0) if the window does not contain all of it."""
    offsets = window.encoding.offsets[window.context]
    inside = [i for i, (first, last) in enumerate(offsets) if last > begin and first < stop]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < stop:
        return 0, 0
    return window.context.start + inside[0], window.context.start + inside[-1]
