"""The encoder sizes that a bundle's config.json states, checked against the runtime's limits."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.common.errors import BundleFormatError

MOST_LAYERS = 256
LARGEST_WIDTH = 2**16
"""Also the largest number of heads, which the ops accept."""

# For each key, the default of transformers' BertConfig and the largest value accepted: no encoder comes near it, and no
# product of these numbers overflows.
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
        config: Its contents.
        file: Its path, for error messages.

    Raises:
        BundleFormatError: A size is not an integer, is out of range, or contradicts another one.
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
