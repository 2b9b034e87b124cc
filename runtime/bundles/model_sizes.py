"""The encoder sizes that a bundle's config.json states, checked against the runtime's limits."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.common.errors import BundleFormatError

MOST_LAYERS = 256
LARGEST_WIDTH = 2**16
"""The largest width, and the largest number of heads, that the ops accept."""

# For each key, the default of transformers' BertConfig and the largest accepted value. No encoder comes near these
# values, and their products do not overflow.
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
        config: Contents of config.json.
        file: Path of config.json, for error messages.

    Raises:
        BundleFormatError: A size is not an integer, is out of range, or contradicts another one.
    """
    sizes = {}
    for key, (default, most) in _SIZES.items():
        value = config.get(key, default)
        if type(value) is not int or value < 1:
            raise BundleFormatError(f"{file}: {key} must be a positive integer, not {reprlib.repr(value)}")
        if value > most:
            raise BundleFormatError(f"{file}: {key} is {reprlib.repr(value)}, but at most {most} is allowed")
        sizes[key] = value
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise BundleFormatError(
            f"{file}: hidden_size {sizes['hidden_size']} is not a multiple of num_attention_heads "
            f"{sizes['num_attention_heads']}"
        )
    return sizes
