"""The work folder of a long run: it keeps intermediate results, so that a run that was stopped can be resumed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DynamicTinyBertError
from .publish import writing


@contextmanager
def work_dir(folder: Path, *, resume: bool, error_if_exists: DynamicTinyBertError) -> Iterator[Path]:
    """Create the folder or, with `resume`, use the existing one; delete it at the end, but keep it after an error.

    Raises:
        DynamicTinyBertError: `error_if_exists`, if the folder exists and `resume` is not set.
        StorageError: The folder cannot be created.
    """
    if folder.exists() and not resume:
        raise error_if_exists
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def digest(file: Path) -> str:
    """SHA-256 of a file in hex, by which a resumed run recognises its data."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
