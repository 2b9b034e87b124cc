"""Keep latency tables in the user's cache folder, one file for each bundle, CPU and way of running."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .common.errors import StorageError
from .common.publish import writing
from .latency_table import Batch, LatencyTable

VARIABLE = "DYNAMIC_TINYBERT_CACHE"
"""Environment variable: the cache folder, or `OFF`."""

OFF = "off"
"""In the place of a folder: keep nothing, and read nothing."""

_LARGEST_FILE = 1 << 20  # bytes

Key = Mapping[str, Any]
"""JSON values on which times depend."""


def cache_folder(given: str | Path | None = None) -> Path | None:
    """The folder of latency tables; None for no cache.

    Args:
        given: The package's cache folder, or "off"; None for that of the environment: DYNAMIC_TINYBERT_CACHE, else
            `dynamic-tinybert` in XDG_CACHE_HOME or in ~/.cache.
    """
    place = given if given is not None else os.environ.get(VARIABLE) or None
    if place is not None:
        return None if str(place) == OFF else Path(place) / "latency"
    home = os.environ.get("XDG_CACHE_HOME", "")
    if Path(home).is_absolute():  # the specification ignores other values
        return Path(home) / "dynamic-tinybert" / "latency"
    try:
        return Path.home() / ".cache" / "dynamic-tinybert" / "latency"
    except RuntimeError:  # the user has no home folder
        return None


def load_table(folder: Path, key: Key) -> LatencyTable | None:
    """The table that was kept for this key; None if there is none, or the file is damaged or holds something else."""
    file = _file(folder, key)
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_FILE:
            return None
        content = json.loads(file.read_bytes())
        return _table(content["ms"]) if content["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


def save_table(folder: Path, key: Key, table: LatencyTable) -> None:
    """Keep a table, complete or not at all; where that is not possible, as in a read-only home, nothing is kept."""
    ms = {name: [[*batch, value] for batch, value in own.items()] for name, own in table.ms.items()}
    file = _file(folder, key)
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with suppress(StorageError), writing(file):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps({"key": key, "ms": ms}, indent=1))
            partial.replace(file)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _file(folder: Path, key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:32]}.json"


def _table(content: Mapping[str, Any]) -> LatencyTable:
    """A table as `save_table` wrote it.

    Raises:
        ValueError: It is another one, or its numbers are no times; other errors where it has another form.
    """
    ms: dict[str, dict[Batch, float]] = {}
    for name, rows in content.items():
        own = ms[name] = {}
        for length, size, value in rows:
            if not all(type(number) is int and 0 < number < 2**31 for number in (length, size)):
                raise ValueError(f"{length!r} tokens, {size!r} inputs")
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ValueError(f"{value!r} milliseconds")
            own[length, size] = float(value)
        lengths = {length for length, size in own if size == 1}
        if not lengths or not {length for length, _ in own} <= lengths:
            raise ValueError(f"{name} lacks times of single inputs")
    return LatencyTable(ms)
