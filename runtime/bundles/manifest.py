"""Read, check and write the manifest of a bundle."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dynamic_tinybert.runtime.common.errors import (
    BundleCorruptError,
    BundleFormatError,
    BundleNotFoundError,
    InvalidInputError,
)

from .files import CONFIG, LISTED_FILES, MANIFEST, MODEL_XML, read_json

FORMAT_VERSION = 2
"""The newest version of the format that this release reads."""

DEFAULT_TASK = "question_answering"
"""The task of bundles of format 1, whether they name it or not."""

NO_ANSWER = "no_answer_threshold"
_LARGEST_THRESHOLD = 1_000_000  # logits are far smaller

T = TypeVar("T")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle and check its format's version, its digest and its list of files.

    Raises:
        BundleNotFoundError: There is no manifest in `folder`.
        BundleCorruptError: The manifest is truncated or edited.
        BundleFormatError: The manifest has a newer format, or is not one of our manifests.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleNotFoundError(_why_no_bundle(folder))
    manifest = read_json(file)
    version = get(manifest, "format_version", int)
    if version > FORMAT_VERSION:
        raise BundleFormatError(
            f"{folder} is a bundle of format {version}, but this release only reads formats up to {FORMAT_VERSION}; "
            "upgrade with: pip install --upgrade dynamic-tinybert"
        )
    if version < 1:
        raise BundleFormatError(f"{file}: format_version {version} does not exist; export the model again")
    expected, found = get(manifest, "manifest_sha256", str), _digest_of(manifest)
    if found != expected:
        raise BundleCorruptError(
            f"{file} was edited: the SHA-256 of its contents is {found}, but it states {expected}; "
            "export or download the bundle again"
        )
    files = get(manifest, "files", dict)
    for name in files:
        if name not in LISTED_FILES:
            raise BundleFormatError(
                f"{file} lists the file {reprlib.repr(name)}, which is not one of {', '.join(LISTED_FILES)}"
            )
        entry = get(files, name, dict)
        get(entry, "size", int)
        get(entry, "sha256", str)
    return manifest


def as_json(described: Mapping[str, object]) -> dict[str, Any]:
    """A manifest's values as they will be read back from JSON: tuples become lists.

    Raises:
        InvalidInputError: A value is not JSON: NaN, infinite or of another type.
    """
    try:
        manifest: dict[str, Any] = json.loads(json.dumps(described, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{MANIFEST} can only hold plain JSON values: {error}") from error
    return manifest


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest with its digest, which makes `folder` a bundle."""
    sealed = {**manifest, "manifest_sha256": _digest_of(manifest)}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=2) + "\n")


def format_version_of(task: str) -> int:
    """The oldest version of the format that can hold a task: readers of version 1 assume question answering."""
    return 1 if task == DEFAULT_TASK else 2


def task_of(manifest: Mapping[str, Any]) -> str:
    """The name of the task that a bundle is for.

    Raises:
        BundleFormatError: The name is missing or malformed, or not allowed in the manifest's version of the format.
    """
    if manifest["format_version"] == 1:
        return DEFAULT_TASK if "task" not in manifest else str(one_of(manifest, "task", (DEFAULT_TASK,)))
    task = get(manifest, "task", str)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", task):
        raise BundleFormatError(
            f"{MANIFEST}: task {reprlib.repr(task)}: a name is made of a-z, 0-9 and '_', and starts with a letter"
        )
    return task


def no_answer_threshold_of(manifest: Mapping[str, Any]) -> float | None:
    """The no-answer score above which a question has no answer; None if the manifest has no such threshold.

    Raises:
        BundleFormatError: The threshold is not a number, or is out of range.
    """
    value = manifest.get(NO_ANSWER)
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) <= _LARGEST_THRESHOLD:
        raise BundleFormatError(
            f"{MANIFEST}: {NO_ANSWER} must be null or a number between -1e6 and 1e6, not {reprlib.repr(value)}"
        )
    return float(value)


def get(data: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """A value of the manifest, or of an object in it, checked to be of type `kind`.

    Raises:
        BundleFormatError: The value is missing or of another type.
    """
    value = data.get(key)
    if type(value) is not kind:  # not isinstance: True must not count as an int
        raise BundleFormatError(f"{MANIFEST}: {key} must be a {kind.__name__}, not {reprlib.repr(value)}")
    return value


def one_of(data: Mapping[str, Any], key: str, values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - one of `values`
    """A value of the manifest, or of an object in it, checked to be one of `values`.

    Raises:
        BundleFormatError: The value is missing or not one of them.
    """
    if key not in data or data[key] not in values:
        raise BundleFormatError(
            f"{MANIFEST}: {key} must be one of {reprlib.repr(values)}, not {reprlib.repr(data.get(key))}"
        )
    return data[key]


def _digest_of(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _why_no_bundle(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    missing = f"{folder} is not a bundle: it has no {MANIFEST}"
    if (folder / MODEL_XML).exists():
        return f"{missing}; make a bundle from this model's checkpoint: dynamic-tinybert export MODEL OUTPUT"
    if (folder / CONFIG).exists():
        return f"{missing}; if it is a checkpoint, make a bundle from it: dynamic-tinybert export {folder} OUTPUT"
    return missing
