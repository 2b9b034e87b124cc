"""Turn texts and pairs of texts into tokens, as transformers' fast tokenizers do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.tokenizer_file import read_tokenizer


@dataclass(frozen=True, slots=True)
class TextTokens:
    """``[CLS] text [SEP]`` or ``[CLS] text [SEP] text_pair [SEP]``.

    Attributes:
        encoding: All tokens.
    """

    encoding: Encoding

    def __len__(self) -> int:
        return len(self.encoding)

    @property
    def input_ids(self) -> list[int]:
        """The ids of all tokens."""
        ids: list[int] = self.encoding.ids
        return ids

    @property
    def token_type_ids(self) -> list[int]:
        """0 for [CLS], the first text and its [SEP], 1 for the second text and its own."""
        types: list[int] = self.encoding.type_ids
        return types

    @property
    def is_cut(self) -> bool:
        """Whether tokens at the end of a text were left out."""
        return bool(self.encoding.overflowing)


class TextTokenizer:
    """Tokenizes texts and pairs for a model of a certain length. Immutable, so threads may share it."""

    def __init__(self, tokenizer: Path | Tokenizer, max_length: int) -> None:
        """Read a ``tokenizer.json``, or copy a tokenizer, for a model that reads up to `max_length` tokens.

        Raises:
            BundleCorruptError: The file cannot be read.
        """
        content = (read_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer).to_str()
        self._whole, self._cutting = Tokenizer.from_str(content), Tokenizer.from_str(content)
        for own in (self._whole, self._cutting):
            own.no_padding()
        self._whole.no_truncation()
        self._cutting.enable_truncation(max_length, strategy="longest_first")
        self._max_length = max_length

    def __call__(self, text: str, text_pair: str | None = None, *, truncation: bool = False) -> TextTokens:
        """Tokenize a text or a pair.

        Args:
            text: The text.
            text_pair: The second text of a pair.
            truncation: Cut a longer input to the model's length, at the end of the longer text.

        Raises:
            InvalidInputError: A text is not a string or has no tokens, or the input is too long and may not be cut.
        """
        for name, value in (("text", text), ("text_pair", text_pair)):
            if not isinstance(value, str) and not (name == "text_pair" and value is None):
                raise InvalidInputError(f"{name} must be a string, not {type(value).__name__}")
        try:
            encoding = (self._cutting if truncation else self._whole).encode(text, text_pair)
        except TypeError as error:  # a lone surrogate
            raise InvalidInputError(f"this is not valid Unicode text: {(text + (text_pair or ''))[:60]!r}") from error
        found = set(encoding.sequence_ids)
        for index, (name, value) in enumerate((("text", text), ("text_pair", text_pair))):
            if value is not None and index not in found:
                raise InvalidInputError(f"{name} is empty: {value[:60]!r} holds no token")
        if len(encoding) > self._max_length:
            raise InvalidInputError(
                f"the input has {len(encoding)} tokens, and this model reads {self._max_length}; shorten it, or give "
                "truncation=True to cut it"
            )
        return TextTokens(encoding)
