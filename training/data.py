"""Questions with answers as windows of tokens in which the answers are marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.squad import Example, read_squad
from dynamic_tinybert.runtime.windows import Window, WindowTokenizer, window_size


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


def read_answered(path: str | Path, limit: int | None = None) -> list[Example]:
    """Read the questions of a SQuAD v1.1 file and check that each has an answer where the file says it is.

    Raises:
        DataError: The file cannot be read, or a question has no answer or one that is not at its place.
        InvalidInputError: `limit` is less than 1.
    """
    examples = read_squad(path, require_answers=True, limit=limit)
    for example in examples:
        answer, start = example.answers[0], example.answer_starts[0]
        if not isinstance(start, int) or start < 0 or not example.context.startswith(answer, start):
            raise DataError(
                f"{path}: the answer {answer!r:.60} of question {example.id!r} is not at its answer_start {start!r} in "
                f"the context {example.context!r:.60}; correct it, as training must know where answers are"
            )
    return examples


def answered_windows(
    tokenize: WindowTokenizer, examples: Sequence[Example], *, max_length: int, max_seq_len: int | None = None
) -> list[AnsweredWindow]:
    """All windows of questions with their first answers; a question that does not fit a window is left out.

    Args:
        tokenize: Cuts the windows.
        examples: Questions from `read_answered`.
        max_length: Most tokens that the model reads.
        max_seq_len: Tokens of a window, by default at most 384; two share 128, or half of it if that is less.

    Raises:
        DataError: None of the questions fits.
        InvalidInputError: `max_seq_len` is more than `max_length` or less than 1.
    """
    size, stride = window_size(max_length, max_seq_len)
    found: list[AnsweredWindow] = []
    refused: InvalidInputError | None = None
    for example in examples:
        begin, stop = _characters_of_answer(example)
        try:
            windows = tokenize(example.question, example.context, max_seq_len=size, doc_stride=stride)
        except InvalidInputError as error:
            refused = error
            continue
        for window in windows:
            ids = np.array(window.encoding.ids, np.int32)
            found.append(AnsweredWindow(ids, window.context.start, *_tokens_of_answer(window, begin, stop)))
    if not found:
        raise DataError(f"the model cannot read any of the {len(examples)} questions: {refused}")
    return found


def _characters_of_answer(example: Example) -> tuple[int, int]:
    start, answer = example.answer_starts[0], example.answers[0]
    assert isinstance(start, int)  # `read_answered` has checked
    begin = start + len(answer) - len(answer.lstrip())  # tokens have no blanks
    return begin, begin + len(answer.strip())


def _tokens_of_answer(window: Window, begin: int, stop: int) -> tuple[int, int]:
    offsets = window.encoding.offsets[window.context]
    inside = [i for i, (first, last) in enumerate(offsets) if last > begin and first < stop]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < stop:
        return 0, 0
    return window.context.start + inside[0], window.context.start + inside[-1]
