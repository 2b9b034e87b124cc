"""The sizes of an encoder that a bundle's config.json states, within what the runtime can hold."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.common.errors import BundleFormatError

MOST_LAYERS = 256
LARGEST_WIDTH = 2**16
"""And most heads: those that the ops take."""

# For each key what transformers' BertConfig takes if config.json leaves it out, and the most that may stand there: no
# encoder comes near, and no later product of these numbers wraps.
_SIZES = {
    "num_hidden_layers": (12, MOST_LAYERS),
    "hidden_size": (768, LARGEST_WIDTH),
    "intermediate_size": (3072, LARGEST_WIDTH),
    "num_attention_heads": (12, LARGEST_WIDTH),
    "max_position_embeddings": (512, 2**20),
    "vocab_size": (30522, 2**24),
    "type_vocab_size": (2, 2**16),
}


def model_sizes(config: Mapping[str, Any], file: Path) -> dict[str, int]:
    """The sizes by their keys in config.json.

    Args:
        config: What stands in it.
        file: Where it lies, for errors.

    Raises:
        BundleFormatError: A size is no integer, is out of range, or does not go with another one.
    """
    sizes = {}
    for key, (default, most) in _SIZES.items():
        value = config.get(key, default)
        if type(value) is not int or value < 1:
            raise BundleFormatError(f"{file}: {key} must be a positive integer, not {reprlib.repr(value)}")
        if value > most:
            raise BundleFormatError(f"{file}: {key} is {reprlib.repr(value)}, and can be at most {most}")
        sizes[key] = value
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise BundleFormatError(
            f"{file}: hidden_size {sizes['hidden_size']} is no multiple of the {sizes['num_attention_heads']} heads of "
            "num_attention_heads"
        )
    return sizes
