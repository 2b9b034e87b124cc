"""Answer the rows of a table, block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tables.table import Kind, Row
from dynamic_tinybert.runtime.tasks.windows import Window

from .answers import Answer
from .options import AnswerOptions
from .plan import AnswerPlan
from .windowing import Windowing

BLOCK_ROWS = 256
"""Rows that are answered together: enough for full batches of windows of nearly the same length."""
BLOCK_CHARACTERS = 1_000_000
"""Characters of texts after which a block ends earlier, so that long texts do not need more memory."""

ANSWER_COLUMNS: Mapping[str, Sequence[Kind]] = {
    "answer": ("text",),
    "score": ("float",),
    "start": ("int",),
    "end": ("int",),
    "error": ("text",),
}
"""The new columns: the best answer and, for a row that cannot be answered, why."""


def new_columns(options: AnswerOptions) -> dict[str, Sequence[Kind]]:
    """The new columns, with the kinds of their values: `ANSWER_COLUMNS` and, if several answers are asked for, all."""
    return dict(ANSWER_COLUMNS) | ({"answers": ("other",)} if options.top_k > 1 else {})


@dataclass(frozen=True, slots=True)
class InputColumns:
    """The names of the columns that are read.

    Attributes:
        question: Column of the questions.
        context: Column of the texts to answer from.
        id: Column that names a row in messages; None if there is none.
    """

    question: str = "question"
    context: str = "context"
    id: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.question, self.context, *(() if self.id is None else (self.id,)))

    def place(self, row: Row) -> str:
        """Where a row is, for messages."""
        named = None if self.id is None else row.values.get(self.id)
        return row.place if named is None else f"{row.place}, {self.id} {named!r:.60}"


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """The answers to a row.

    Attributes:
        answers: Best first; none if the row cannot be answered.
        error: Why it cannot be answered.
    """

    answers: Sequence[Answer] = ()
    error: str | None = None

    def values(self, options: AnswerOptions) -> list[object]:
        """The values of `new_columns`, in their order."""
        best = self.answers[0] if self.answers else None
        values = [None] * 4 if best is None else [best["answer"], best["score"], best["start"], best["end"]]
        return [*values, self.error, *([list(self.answers) or None] if options.top_k > 1 else [])]


class BulkAnswerer:
    """Answers blocks of rows with a model, exactly as `QuestionAnswerer` answers their questions."""

    def __init__(
        self,
        model: LengthAdaptiveModel,
        columns: InputColumns | None = None,
        options: AnswerOptions | None = None,
        length_config: str | None = None,
    ) -> None:
        """Answer with a loaded model.

        Args:
            model: The model.
            columns: The columns to read; by default ``question`` and ``context``.
            options: How texts are cut and answers chosen; by default as `QuestionAnswerer` does for this model.
            length_config: Name of a length configuration in the bundle; None for the bundle's default.

        Raises:
            InvalidInputError: The windows of the options do not fit the model.
            LengthConfigError: The length configuration is unknown.
        """
        model.resolve(length_config)
        self.model = model
        self.columns = columns or InputColumns()
        self.options = options or AnswerOptions.for_model(model.max_length)
        self.length_config = length_config or model.bundle.default_length_config
        self._windowing = Windowing.of(model, self.options.max_seq_len, self.options.doc_stride)

    def windows_of(self, row: Row) -> list[Window]:
        """The windows of a row.

        Raises:
            InvalidInputError: The row cannot be answered: it could not be read, a text is missing, is no text or has no
                tokens, or the question fills the window.
        """
        if row.error is not None:
            raise InvalidInputError(row.error)
        texts = []
        for name in (self.columns.question, self.columns.context):
            text = row.values.get(name)
            if text is None:
                raise InvalidInputError(f"it has no {name!r}")
            if not isinstance(text, str):
                raise InvalidInputError(f"its {name!r} must be text, not {text!r:.60}")
            texts.append(text)
        return self._windowing.cut(*texts)

    def answer(self, rows: Sequence[Row]) -> list[AnsweredRow]:
        """Answer a block of rows; a row that cannot be answered says why."""
        errors: dict[int, str] = {}
        windows: dict[int, list[Window]] = {}
        for i, row in enumerate(rows):
            try:
                windows[i] = self.windows_of(row)
            except InvalidInputError as error:
                errors[i] = str(error)
        contexts = [str(rows[i].values[self.columns.context]) for i in windows]
        threshold = self.model.bundle.no_answer_threshold
        plan = AnswerPlan(contexts, list(windows.values()), self.options, self.length_config, threshold)
        answers = dict(zip(windows, plan.run(self.model), strict=True))
        return [AnsweredRow(answers.get(i, ()), errors.get(i)) for i in range(len(rows))]

    def answer_all(self, blocks: Iterable[list[Row]]) -> Iterator[tuple[list[Row], list[AnsweredRow]]]:
        """Answer blocks, two at a time: the model runs one while the texts of the other are cut or its answers chosen.

        Returns:
            Each block, in order, with its answers.
        """
        begun: deque[tuple[list[Row], Future[list[AnsweredRow]]]] = deque()
        with ThreadPoolExecutor(2) as pool:
            try:
                for block in blocks:
                    begun.append((block, pool.submit(self.answer, block)))
                    if len(begun) == 2:
                        first, answered = begun.popleft()
                        yield first, answered.result()
                for last, answered in begun:
                    yield last, answered.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def blocks(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """Cut rows into blocks, which depend on the rows alone."""
        block: list[Row] = []
        characters = 0
        for row in rows:
            block.append(row)
            texts = (row.values.get(name) for name in (self.columns.question, self.columns.context))
            characters += sum(len(text) for text in texts if isinstance(text, str))
            if len(block) == BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
                yield block
                block, characters = [], 0
        if block:
            yield block
