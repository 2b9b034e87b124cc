"""Read the tokenizer of a bundle."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from dynamic_tinybert.runtime.common.errors import BundleCorruptError


def read_tokenizer(tokenizer_file: Path) -> Tokenizer:
    """Read a ``tokenizer.json``.

    Raises:
        BundleCorruptError: It cannot be read.
    """
    try:
        return Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleCorruptError(
            f"{tokenizer_file} is not a readable tokenizer: {error}; export or download the bundle again"
        ) from error
