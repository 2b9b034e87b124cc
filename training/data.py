"""Questions with answers as windows of tokens in which the answers are marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.findings import Finding, Kind
from dynamic_tinybert.runtime.tasks.question_answering.question_checks import read_questions
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.question_answering.windows import Window, WindowTokenizer

_TREATMENT = {
    Kind.UNREADABLE: "skipped",
    Kind.WITHOUT_ANSWER: "skipped",
    Kind.MISPLACED: "skipped, unless another answer has a place",
    Kind.PUT_RIGHT: "put right",
    Kind.WITHOUT_PLACE: "found where its text stands once, else skipped",
    Kind.SAME_ID: "taken like any other",
}


@dataclass(frozen=True, slots=True)
class AnsweredWindow:
    """A window and where its answer lies.

    Attributes:
        ids: Token ids, int32 [N].
        context_start: First token of the context; those before are [CLS], the question and its [SEP].
        start: First token of the answer; 0, which is [CLS], where the window does not hold all of it.
        end: Its last token; 0 likewise.
        taught: Logits of start and end that a teacher gives, float16 [2, N], if one was asked.
    """

    ids: npt.NDArray[np.int32]
    context_start: int
    start: int
    end: int
    taught: npt.NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class AnsweredQuestions:
    """Questions that one can train on.

    Attributes:
        examples: Each has an answer with a place, or is unanswerable.
        findings: What is wrong with questions of the file, those that are skipped among them.
        lines: The same, a line for each kind.
    """

    examples: Sequence[Example]
    findings: Sequence[Finding]
    lines: Sequence[str]


def read_answered(
    path: str | Path, limit: int | None = None, windows: Windowing | None = None, *, strict: bool = False
) -> AnsweredQuestions:
    """Read the questions of a file and find where their answers are.

    Args:
        path: A file that `read_squad` reads.
        limit: Read only so many questions.
        windows: Tells which questions the model can read; the others are skipped.
        strict: Refuse the file if anything is wrong with a question.

    Raises:
        DataError: The file cannot be read, no question can be trained on, or `strict` refuses one.
        InvalidInputError: `limit` is less than 1.
    """
    name = Path(path).name
    checked = read_questions(path, _TREATMENT, windows, limit=limit, strict=strict)
    examples = [e for e in checked.readable if e.is_impossible or _characters_of_answer(e) is not None]
    if not examples:
        raise DataError(f"{name} holds no question to train on; {checked.findings[0]}")
    return AnsweredQuestions(examples, checked.findings, checked.lines)


def answered_windows(
    tokenize: WindowTokenizer, examples: Sequence[Example], *, max_length: int, max_seq_len: int | None = None
) -> list[AnsweredWindow]:
    """All windows of questions with their first answers that have a place; one that does not fit is left out.

    Args:
        tokenize: Cuts the windows.
        examples: Questions from `read_answered`. All windows of an unanswerable one point to [CLS].
        max_length: Most tokens that the model reads.
        max_seq_len: Tokens of a window, by default at most 384; two share 128, or half of it if that is less.

    Raises:
        DataError: None of the questions fits.
        InvalidInputError: `max_seq_len` is more than `max_length` or less than 1.
    """
    windows_of = Windowing(tokenize, max_length, max_seq_len)
    found: list[AnsweredWindow] = []
    for example in examples:
        answer = _characters_of_answer(example)
        for window in windows_of(example):
            tokens = (0, 0) if answer is None else _tokens_of_answer(window, *answer)
            found.append(AnsweredWindow(np.array(window.encoding.ids, np.int32), window.context.start, *tokens))
    if not found:
        raise windows_of.refuse_all(f"any of the {len(examples)} questions")
    return found


def _characters_of_answer(example: Example) -> tuple[int, int] | None:
    """Of the first answer that has a place; None if none has."""
    for answer, start in zip(example.answers, example.answer_starts, strict=False):
        if isinstance(start, int):
            begin = start + len(answer) - len(answer.lstrip())  # tokens have no blanks
            return begin, begin + len(answer.strip())
    return None


def _tokens_of_answer(window: Window, begin: int, stop: int) -> tuple[int, int]:
    offsets = window.encoding.offsets[window.context]
    inside = [i for i, (first, last) in enumerate(offsets) if last > begin and first < stop]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < stop:
        return 0, 0
    return window.context.start + inside[0], window.context.start + inside[-1]
