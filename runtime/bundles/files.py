"""The files of a bundle: their names, and checks of their contents against the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.common.errors import BundleCorruptError, BundleFormatError
from dynamic_tinybert.runtime.common.publish import BUNDLE_MARK

MANIFEST = BUNDLE_MARK
CONFIG = "config.json"
MODEL_XML = "openvino_model.xml"
MODEL_BIN = "openvino_model.bin"
SCORERS = "significance.safetensors"
TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
OPTIONAL_TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    VOCABULARY,
)

REQUIRED_FILES: Mapping[str, tuple[str, ...]] = {
    "attention": (CONFIG, TOKENIZER, MODEL_XML, MODEL_BIN),
    "learnt": (CONFIG, TOKENIZER, MODEL_XML, MODEL_BIN, SCORERS),
}
"""The files that a bundle must have, by its kind of significance."""

LISTED_FILES = (*REQUIRED_FILES["learnt"], *OPTIONAL_TOKENIZER_FILES)
"""The files that a manifest lists if they are there."""

_LARGEST_JSON = 16 * 2**20  # bytes


def size_and_digest(file: Path) -> dict[str, int | str]:
    """A file's entry in the manifest: `size` in bytes, and `sha256` in hex."""
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def check_file(file: Path, expected: Mapping[str, Any]) -> None:
    """Check that a file has the size and digest that the manifest lists.

    Args:
        file: Path of the file.
        expected: The file's entry in the manifest, see `size_and_digest`.

    Raises:
        BundleCorruptError: The file is missing, cannot be read, or has another size or digest.
    """
    try:
        size = file.stat().st_size
        if size != expected["size"]:
            raise BundleCorruptError(
                f"{file} has {size} bytes instead of {expected['size']}: truncated or edited; "
                "export or download the bundle again"
            )
        digest = size_and_digest(file)["sha256"]
    except OSError as error:
        raise BundleCorruptError(
            f"{file} is listed in {MANIFEST} but cannot be read: {error.strerror}; export or download the bundle again"
        ) from error
    if digest != expected["sha256"]:
        raise BundleCorruptError(
            f"{file} was edited: its SHA-256 is {digest} instead of {expected['sha256']}; "
            "export or download the bundle again"
        )


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        BundleCorruptError: The file is missing, cannot be read or is not JSON.
        BundleFormatError: The file is too large, or holds JSON other than an object.
    """
    try:
        if (size := file.stat().st_size) > _LARGEST_JSON:
            raise BundleFormatError(f"{file} has {size} bytes, but at most {_LARGEST_JSON} are allowed")
        data = json.loads(file.read_bytes(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleCorruptError(
            f"{file} cannot be read as JSON: {error}; export or download the bundle again"
        ) from error
    if not isinstance(data, dict):
        raise BundleFormatError(f"{file} holds {type(data).__name__}, not a JSON object")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
