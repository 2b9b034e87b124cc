"""Read JSON files of records: UTF-8, plain or gzip, one document or one record per line. Errors name the location."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from dynamic_tinybert.runtime.common.errors import DataError

Record = dict[str, object]
"""A JSON object."""

_GZIP = b"\x1f\x8b"


def read_records(path: str | Path, *, key: str, refusal: str) -> Iterator[tuple[str, Record]]:
    """Pairs of a record's location in the file, for error messages, and the record.

    A file holds a list of records, an object with a list of them under ``data``, a single record, or JSON lines.

    Args:
        path: The file.
        key: A key by which a single record is recognised.
        refusal: Completes the error message "…, so this is …" about a file without records: "neither … nor …".

    Raises:
        DataError: The file cannot be read or is not JSON of these forms.
    """
    return _records(str(path), _content(path), key, refusal)


def objects_in(place: str, node: object, key: str, *, refusal: str) -> Iterator[tuple[str, Record]]:
    """Pairs of an object's location in the file and the object, for each object in the list `node[key]`.

    Args:
        place: Location of `node` in the file.
        node: A value of the file.
        key: Key of the list.
        refusal: As for `read_records`.

    Raises:
        DataError: There is no such list, or one of its members is not an object.
    """
    children = node.get(key) if isinstance(node, dict) else None
    if not isinstance(children, list):
        raise DataError(f"{place} has no list {key!r}, so this is {refusal}")
    yield from _members(place, key, children)


def text_in(place: str, node: Record, key: str) -> str:
    """The text `node[key]`.

    Raises:
        DataError: There is no such text.
    """
    text = node.get(key)
    if not isinstance(text, str):
        raise DataError(f"{place} has no text {key!r}")
    return text


def _content(path: str | Path) -> str:
    try:
        content = Path(path).read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: gzip cannot unpack it: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        raise DataError(f"{path} is {encoding[:6].upper()}, or not text; save it as UTF-8")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte 0x{content[error.start]:02x} at {error.start}); if it is Latin-1 or another "
            "encoding, save it as UTF-8"
        ) from error


def _records(path: str, text: str, key: str, refusal: str) -> Iterator[tuple[str, Record]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not _is_lines(text):
            raise DataError(f"{path} is not JSON: {error}") from error
        yield from _lines(path, text)
        return
    if isinstance(content, list):
        yield from _members(path, "", content)
    elif isinstance(content, dict) and "data" not in content and key in content:
        yield f"{path}, line 1", content
    else:
        yield from objects_in(path, content, "data", refusal=refusal)


def _lines(path: str, text: str) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also split at characters within texts
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number} must be an object, not {record!r:.60}")
        yield f"{path}, line {number}", record


def _is_lines(text: str) -> bool:
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _members(place: str, key: str, children: list[object]) -> Iterator[tuple[str, Record]]:
    for i, child in enumerate(children):
        if not isinstance(child, dict):
            raise DataError(f"{place}, {key}[{i}] must be an object, not {child!r:.60}")
        yield f"{place}, {key}[{i}]", child
