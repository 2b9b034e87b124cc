"""Values of one format in the terms of another."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping


def json_ready(value: object) -> object:
    """A value in JSON's types: NaN and infinity become None, bytes base64, dates and other objects text."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): json_ready(own) for key, own in value.items()}
        case list() | tuple():
            return [json_ready(own) for own in value]
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return str(value)


def as_text(value: object) -> str | None:
    """A value for a column of texts: text as it is, everything else as JSON; None stays None."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(json_ready(value), ensure_ascii=False)
    return utf8(text)


def utf8(text: str) -> str:
    """The text with U+FFFD for what UTF-8 cannot encode: lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text
