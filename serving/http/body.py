"""Bodies of requests: read up to a limit, and as strict JSON."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from dynamic_tinybert.serving.settings import ServerSettings

MOST_NESTED = 32
"""Maximum depth of lists and objects in a body."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(scope: Scope, receive: Receive, settings: ServerSettings) -> bytes:
    """Read a body. No more than the maximum size is ever kept, whatever the header Content-Length says.

    Raises:
        HTTPException: 413 if the body is larger than `settings.max_body_bytes`, 408 if it did not arrive in
            `settings.receive_timeout_s`.
        ClientDisconnect: The client hung up.
    """
    most = settings.max_body_bytes
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length[:20]) > most:
        raise _too_large(most)
    message = await _received_within(settings.receive_timeout_s, receive)
    if not message["more_body"] and len(message["body"]) <= most:
        return bytes(message["body"])
    return await _in_parts(message, receive, settings)


async def read_json(scope: Scope, receive: Receive, settings: ServerSettings) -> Any:  # noqa: ANN401 - any JSON
    """Read a body of JSON.

    Raises:
        HTTPException: As `read_body`; 415 if the body is compressed, or its Content-Type names another format; 400 as
            `parse_json`.
        ClientDisconnect: The client hung up.
    """
    encoding = header(scope, b"content-encoding") or "identity"
    if encoding.strip().lower() != "identity":
        raise HTTPException(415, f"the body must not be compressed: leave out Content-Encoding: {encoding[:40]}")
    content_type = header(scope, b"content-type")
    if content_type is not None and not _is_json(content_type):
        raise HTTPException(
            415, f"the body must be JSON, with the header Content-Type: application/json, not {content_type!r}"
        )
    return parse_json(await read_body(scope, receive, settings))


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, whose name is given in lower case; None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def parse_json(body: bytes | memoryview) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON as RFC 8259 defines it, in UTF-8; of keys that occur twice, the last counts.

    Raises:
        HTTPException: 400 if the body is not such JSON, is nested too deeply, holds a number that is not finite or has
            thousands of digits, or a text with a lone surrogate.
    """
    try:
        value = json.loads(str(body, "utf-8"), parse_constant=_not_json, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _malformed(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # an int of thousands of digits
        raise _malformed(str(error)) from error
    body = bytes(body)
    if body.count(b"[") + body.count(b"{") > MOST_NESTED or _SURROGATE.search(body):
        _check_tree(value)
    return value


async def _received_within(seconds: float, receive: Receive) -> Any:  # noqa: ANN401 - an ASGI message
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError as error:
        raise HTTPException(408, "the body did not arrive in time", headers={"connection": "close"}) from error
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return {"body": message.get("body", b""), "more_body": message.get("more_body", False)}


async def _in_parts(message: Any, receive: Receive, settings: ServerSettings) -> bytes:  # noqa: ANN401
    """The rest of a body after its first message."""
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.receive_timeout_s
    parts = [message["body"]]
    size = len(message["body"])
    while size <= settings.max_body_bytes and message["more_body"]:
        message = await _received_within(end - loop.time(), receive)
        parts.append(message["body"])
        size += len(message["body"])
    if size > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    return b"".join(parts)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _check_tree(value: object) -> None:
    """Check the depth and the texts of a value, without recursion."""
    level, depth = [value], 0
    while level:
        for text in level:
            if isinstance(text, str):
                _check_text(text)
        outer = [inner for inner in level if isinstance(inner, list | dict)]
        if outer and depth == MOST_NESTED:
            raise _too_deep()
        level = [x for one in outer for x in (one if isinstance(one, list) else (*one, *one.values()))]
        depth += 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _malformed(
            f"a text has the lone surrogate \\u{ord(text[error.start]):04x} as character {error.start}, "
            "which stands for no character"
        ) from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> HTTPException:
    return _malformed(f"lists and objects are nested more than {MOST_NESTED} deep")


def _malformed(why: str) -> HTTPException:
    return HTTPException(400, f"the body is not usable JSON: {why}")


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than the {most} bytes that this server takes")
