"""Where a long run keeps what it did, so that it can go on after it was stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DynamicTinyBertError
from .publish import writing


@contextmanager
def workplace(folder: Path, *, resume: bool, in_the_way: DynamicTinyBertError) -> Iterator[Path]:
    """The folder itself, made if it is not there; it goes when all is done, and stays after an error.

    Raises:
        DynamicTinyBertError: `in_the_way`, if the folder is there and `resume` is not set.
        StorageError: It cannot be made.
    """
    if folder.exists() and not resume:
        raise in_the_way
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def digest(file: Path) -> str:
    """SHA-256 of a file, which tells runs on other data apart."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
