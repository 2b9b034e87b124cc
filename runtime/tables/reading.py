"""Open a file of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dynamic_tinybert.runtime.common.errors import DataError


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file of UTF-8 text; errors while it is read are DataErrors.

    Raises:
        DataError: It cannot be read, or is UTF-16 or UTF-32.
    """
    try:
        with path.open("rb") as stream:
            encoding = json.detect_encoding(stream.read(4))
            if not encoding.startswith("utf-8"):
                raise DataError(f"{path} is {encoding[:6].upper()}, or not text; save it as UTF-8")
            stream.seek(0)
            yield stream
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
