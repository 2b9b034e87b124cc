"""Cut a question and its context into windows of tokens that a model can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import BundleCorruptError, InvalidInputError


@dataclass(frozen=True, slots=True)
class Window:
    """The whole question and one stretch of its context: ``[CLS] question [SEP] context [SEP]``.

    Attributes:
        encoding: All tokens; those of the context have their character offsets in the whole context.
        context: Where the tokens of the context lie in `encoding`.
    """

    encoding: Encoding
    context: slice

    def __len__(self) -> int:
        return len(self.encoding)

    @property
    def input_ids(self) -> list[int]:
        """The ids of all tokens."""
        return self.encoding.ids

    @property
    def token_type_ids(self) -> list[int]:
        """0 for [CLS] and the question with its [SEP], 1 for the context with its own."""
        # Not the encoding's own: `tokenizers` leaves 0 in all windows of a pair but the first.
        return [0] * self.context.start + [1] * (len(self) - self.context.start)


def window_size(max_length: int, max_seq_len: int | None = None, doc_stride: int | None = None) -> tuple[int, int]:
    """Tokens of a window and of the overlap of two, checked and with transformers' defaults filled in.

    Args:
        max_length: Most tokens that the model reads.
        max_seq_len: ``min(max_length, 384)`` if None.
        doc_stride: ``min(max_seq_len // 2, 128)`` if None.

    Raises:
        InvalidInputError: A size is no int, too small, or larger than what it must fit in.
    """
    if max_seq_len is None:
        max_seq_len = min(max_length, 384)
    max_seq_len = require_int("max_seq_len", max_seq_len, 1)
    if doc_stride is None:
        doc_stride = min(max_seq_len // 2, 128)
    doc_stride = require_int("doc_stride", doc_stride, 0)
    if max_seq_len > max_length:
        raise InvalidInputError(f"max_seq_len={max_seq_len} is more than the {max_length} tokens this model reads")
    if doc_stride > max_seq_len:
        raise InvalidInputError(f"doc_stride={doc_stride} is larger than max_seq_len={max_seq_len}")
    return max_seq_len, doc_stride


class WindowTokenizer:
    """Tokenizes a question with its context. Nothing changes after construction, so threads may share it."""

    def __init__(self, tokenizer: Path | Tokenizer) -> None:
        """Read a ``tokenizer.json``, or copy a tokenizer.

        Raises:
            BundleCorruptError: The file cannot be read.
        """
        if isinstance(tokenizer, Tokenizer):
            self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        else:
            self._tokenizer = _read(tokenizer)
        self._tokenizer.no_truncation()  # windows are cut here, to sizes that differ from call to call
        self._tokenizer.no_padding()
        self._num_special = self._tokenizer.num_special_tokens_to_add(True)

    def __call__(self, question: str, context: str, *, max_seq_len: int, doc_stride: int) -> list[Window]:
        """All windows over the context, in order.

        Args:
            question: Repeated whole in each window.
            context: Cut into stretches that overlap.
            max_seq_len: Most tokens of a window, question and special tokens included.
            doc_stride: Tokens of the context that a window shares with the one before. Where a long question leaves
                no more room than that, windows would not move on: they then share half of the room.

        Raises:
            InvalidInputError: A text is not a string or has no token, or the question fills the window.
        """
        question_tokens = self._encode("question", question)
        context_tokens = self._encode("context", context)
        room = max_seq_len - len(question_tokens) - self._num_special
        if len(context_tokens) > room:
            if room < 1:
                raise InvalidInputError(
                    f"the question is too long: its {len(question_tokens)} tokens and {self._num_special} special ones "
                    f"leave nothing of max_seq_len={max_seq_len} to the context; shorten it or raise max_seq_len"
                )
            context_tokens.truncate(room, stride=doc_stride if doc_stride < room else room // 2)
        first = self._tokenizer.post_process(question_tokens, context_tokens)
        return [Window(encoding, _context_of(encoding)) for encoding in (first, *first.overflowing)]

    def _encode(self, name: str, text: str) -> Encoding:
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} must be a string, not {type(text).__name__}")
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except TypeError as error:  # a lone surrogate
            raise InvalidInputError(f"{name} is not valid Unicode text: {text[:60]!r}") from error
        if not len(encoding):
            raise InvalidInputError(f"{name} is empty: {text[:60]!r} holds no token")
        return encoding


def _read(tokenizer_file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleCorruptError(
            f"{tokenizer_file} is not a readable tokenizer: {error}; export or download the bundle again"
        ) from error


def _context_of(encoding: Encoding) -> slice:
    sequences = encoding.sequence_ids
    start = sequences.index(1)
    return slice(start, start + sequences.count(1))
