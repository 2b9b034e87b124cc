"""Cut questions into windows for a model, and report those that the model cannot read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.user_classes import require_task
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from .example import Example
from .findings import Kind, QuestionFinding
from .options import window_size


class Windowing:
    """Cuts questions into windows of one size, and records the examples that the model cannot read.

    Attributes:
        max_seq_len: Maximum length of a window in tokens.
        doc_stride: Number of context tokens that neighbouring windows share.
    """

    def __init__(
        self,
        tokenizer: WindowTokenizer | Tokenizer | Path,
        max_length: int,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> None:
        """Cut windows for a model that reads up to `max_length` tokens, of the sizes that `window_size` returns.

        Raises:
            BundleCorruptError: `tokenizer` is a file that cannot be read.
            InvalidInputError: A size is out of range.
        """
        self._tokenize = tokenizer if isinstance(tokenizer, WindowTokenizer) else WindowTokenizer(tokenizer)
        self._max_length = max_length
        self.max_seq_len, self.doc_stride = window_size(max_length, max_seq_len, doc_stride)
        self._unreadable: dict[tuple[str, str, str], QuestionFinding] = {}  # an example may be read many times

    @classmethod
    def of(
        cls, source: Bundle | LengthAdaptiveModel, max_seq_len: int | None = None, doc_stride: int | None = None
    ) -> Windowing:
        """Cut windows for a bundle or a loaded model; sizes and further errors as for the constructor.

        Raises:
            InvalidInputError: The model is for another task.
        """
        bundle = source if isinstance(source, Bundle) else source.bundle
        require_task(bundle, "question_answering", "answer questions")
        tokenizer = source.tokenizer_json if isinstance(source, Bundle) else source.tokenizer_file
        return cls(tokenizer, source.max_length, max_seq_len, doc_stride)

    def resized(self, max_seq_len: int | None, doc_stride: int | None) -> Windowing:
        """A windowing with the same tokenizer and other sizes; its record of unreadable examples is empty."""
        return Windowing(self._tokenize, self._max_length, max_seq_len, doc_stride)

    def cut(self, question: str, context: str) -> list[Window]:
        """Cut a question with its context into at least one window.

        Raises:
            InvalidInputError: A text is not a string or has no tokens, or the question fills the window.
        """
        return self._tokenize(question, context, max_seq_len=self.max_seq_len, doc_stride=self.doc_stride)

    def __call__(self, example: Example) -> list[Window]:
        """All windows of an example; none if the model cannot read it, because it is too long or has no tokens."""
        try:
            return self.cut(example.question, example.context)
        except InvalidInputError as error:
            key = (example.id, example.question, example.context)
            self._unreadable.pop(key, None)
            self._unreadable[key] = QuestionFinding(Kind.UNREADABLE, example.id, str(error))
            return []

    def readable(self, examples: Iterable[Example]) -> Iterator[tuple[Example, list[Window]]]:
        """Each example that the model can read, with its windows."""
        for example in examples:
            if windows := self(example):
                yield example, windows

    def windows(self, examples: Iterable[Example]) -> list[Window]:
        """The windows of all examples that the model can read, in one list."""
        return [window for _, windows in self.readable(examples) for window in windows]

    @property
    def unreadable(self) -> tuple[QuestionFinding, ...]:
        """The unreadable examples found so far, each once, in the order in which they were last seen."""
        return tuple(self._unreadable.values())

    def refuse_all(self, questions: str) -> DataError:
        """The error to raise if the model cannot read any of some questions; it gives the reason for the last one.

        Args:
            questions: Description of these questions; it completes "the model cannot read …".
        """
        # The last one is one of these questions.
        why = self.unreadable[-1].why if self._unreadable else "there are none"
        return DataError(f"the model cannot read {questions}: {why}")


def cut_all(windowing: Windowing, pairs: Sequence[tuple[Any, Any]]) -> list[list[Window]]:
    """The windows of each question with its context; an error names the item if there are several."""
    windows = []
    for index, (question, context) in enumerate(pairs):
        try:
            windows.append(windowing.cut(question, context))
        except InvalidInputError as error:
            if len(pairs) == 1:
                raise
            raise InvalidInputError(f"item {index} of {len(pairs)}, counted from 0: {error}") from error
    return windows
