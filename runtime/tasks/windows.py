"""Cut a question and its context, or any text with another, into windows that a model can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .tokenizer_file import read_tokenizer


@dataclass(frozen=True, slots=True)
class Window:
    """The whole question and one stretch of its context: ``[CLS] question [SEP] context [SEP]``.

    Attributes:
        encoding: All tokens. Offsets of context tokens count the characters of the whole context.
        context: Slice of `encoding` that holds the context tokens.
    """

    encoding: Encoding
    context: slice

    def __len__(self) -> int:
        return len(self.encoding)

    @property
    def input_ids(self) -> list[int]:
        """The ids of all tokens."""
        ids: list[int] = self.encoding.ids
        return ids

    @property
    def token_type_ids(self) -> list[int]:
        """0 for [CLS] and the question with its [SEP], 1 for the context with its own."""
        # The encoding's own type ids cannot be used: `tokenizers` sets them to 0 in all windows but the first.
        return [0] * self.context.start + [1] * (len(self) - self.context.start)


class WindowTokenizer:
    """Tokenizes a question together with its context. Immutable, so threads may share it."""

    def __init__(self, tokenizer: Path | Tokenizer, names: tuple[str, str] = ("question", "context")) -> None:
        """Read a ``tokenizer.json``, or copy a tokenizer; `names` are what messages call the two texts.

        Raises:
            BundleCorruptError: The file cannot be read.
        """
        if isinstance(tokenizer, Tokenizer):
            self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        else:
            self._tokenizer = read_tokenizer(tokenizer)
        self._tokenizer.no_truncation()  # windows are cut by this class, because their sizes differ from call to call
        self._tokenizer.no_padding()
        self._names = names
        self._num_special = self._tokenizer.num_special_tokens_to_add(True)

    def __call__(self, question: str, context: str, *, max_seq_len: int, doc_stride: int) -> list[Window]:
        """Cut a context into windows, in order.

        Args:
            question: Repeated in full in each window.
            context: Cut into stretches that overlap.
            max_seq_len: Maximum length of a window in tokens, including the question and special tokens.
            doc_stride: Number of context tokens that a window shares with the one before it. If a long question leaves
                no more room than that, windows would not advance; they then share half of the room.

        Raises:
            InvalidInputError: A text is not a string or has no tokens, or the question fills the window.
        """
        return self.windows(self.first(question), self.second(context), max_seq_len=max_seq_len, doc_stride=doc_stride)

    def first(self, text: str) -> Encoding:
        """The tokens of a question, which may be used with many contexts; errors as for `__call__`."""
        return self._encode(self._names[0], text)

    def second(self, text: str) -> Encoding:
        """The tokens of a context; errors as for `__call__`."""
        return self._encode(self._names[1], text)

    def require_room(self, question_tokens: Encoding, max_seq_len: int) -> int:
        """Number of context tokens that fit into a window; raises InvalidInputError if there are none."""
        room: int = max_seq_len - len(question_tokens) - self._num_special
        if room < 1:
            name, other_name = self._names
            raise InvalidInputError(
                f"the {name} is too long: its {len(question_tokens)} tokens and {self._num_special} special ones "
                f"leave no room for the {other_name} in max_seq_len={max_seq_len}; shorten it or raise max_seq_len"
            )
        return room

    def windows(
        self, question_tokens: Encoding, context_tokens: Encoding, *, max_seq_len: int, doc_stride: int
    ) -> list[Window]:
        """As `__call__`, for texts that are tokenized already; the context's encoding is changed."""
        room = self.require_room(question_tokens, max_seq_len)
        if len(context_tokens) > room:
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


def _context_of(encoding: Encoding) -> slice:
    sequences = encoding.sequence_ids
    start = sequences.index(1)
    return slice(start, start + sequences.count(1))
