"""Bodies: read within limits, and as strict JSON."""

import asyncio
import json
import math
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dynamic_tinybert.serving.http.body import MOST_NESTED, parse_json, read_body, read_json
from dynamic_tinybert.serving.settings import ServerSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Client:
    """Sends a body in parts, then nothing more."""

    def __init__(self, parts: list[bytes], *, hangs_up: bool = False, stalls: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": stalls or hangs_up or i < len(parts) - 1}
            for i, part in enumerate(parts or [b""])
        ]
        if hangs_up:
            self.messages.append({"type": "http.disconnect"})
        self.read = 0

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.Event().wait()
        message = self.messages.pop(0)
        self.read += len(message.get("body", b""))
        return message


def read(client: Client, *, length: bytes | None = None, **settings: object) -> bytes:
    headers = [] if length is None else [(b"content-length", length)]
    return asyncio.run(read_body({"headers": headers}, client.receive, ServerSettings(**settings)))


def status_of(error: pytest.ExceptionInfo[HTTPException]) -> int:
    return error.value.status_code


@given(parts=st.lists(st.binary(max_size=20), max_size=8), limit=st.integers(1, 100))
def test_no_more_than_the_limit_is_read_however_the_body_is_cut(parts: list[bytes], limit: int) -> None:
    client, whole = Client(parts), b"".join(parts)
    if len(whole) <= limit:
        assert read(client, max_body_bytes=limit) == whole
    else:
        with pytest.raises(HTTPException) as refused:
            read(client, max_body_bytes=limit)
        assert status_of(refused) == 413
        assert client.read <= limit + 20  # the part that went beyond


@pytest.mark.parametrize(("length", "known"), [(b"11", True), (b"9" * 400, True), (b"3", False), (b"-1", False)])
def test_content_length_is_believed_only_if_it_is_too_large(length: bytes, known: bool) -> None:
    client = Client([b"0123456789", b"0"])
    with pytest.raises(HTTPException) as refused:
        read(client, length=length, max_body_bytes=10)
    assert status_of(refused) == 413
    assert (client.read == 0) == known


def test_a_body_that_does_not_come_in_time() -> None:
    with pytest.raises(HTTPException, match="did not arrive in time") as refused:
        read(Client([b"a", b"b"], stalls=True), receive_timeout_s=0.02)
    assert status_of(refused) == 408
    assert (refused.value.headers or {})["connection"] == "close"


def test_a_client_that_hangs_up() -> None:
    with pytest.raises(ClientDisconnect):
        read(Client([b"a"], hangs_up=True))


@given(value=JSON, ascii_only=st.booleans())
def test_json_is_what_it_is_for_pythons_module(value: object, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(body=st.binary() | st.text(alphabet='[]{}",:\\u0dDeE+-.19naNItfy \t').map(str.encode))
def test_anything_is_parsed_or_refused(body: bytes) -> None:
    try:
        expected = json.loads(body.decode())
    except ValueError:
        with pytest.raises(HTTPException) as refused:
            parse_json(body)
        assert status_of(refused) == 400
    else:
        if is_strict(expected):
            assert parse_json(body) == expected
        else:  # what only Python's module takes
            with pytest.raises(HTTPException) as refused:
                parse_json(body)
            assert status_of(refused) == 400


def is_strict(value: object) -> bool:
    if isinstance(value, list | dict):
        return all(map(is_strict, value if isinstance(value, list) else [*value, *value.values()]))
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value at character 0"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "the number 1e999 is too large"),
        (b"9" * 5000, "4300"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        ("\ufeff1".encode(), "BOM"),
        ('"ä"'.encode("utf-16"), "not UTF-8"),
        (rb'["\ud83d"]', r"lone surrogate \\ud83d as character 0"),
        (rb'{"a\uDe00": 1}', r"lone surrogate \\ude00 as character 1"),
        (b"[" * (MOST_NESTED + 1) + b"]" * (MOST_NESTED + 1), "nested more than 32 deep"),
        (b'{"a":' * 100_000, "nested more than 32 deep"),
    ],
)
def test_what_is_no_strict_json(body: bytes, reason: str) -> None:
    with pytest.raises(HTTPException) as refused:
        parse_json(body)
    assert status_of(refused) == 400
    assert re.search(reason, refused.value.detail), refused.value.detail


def test_what_is_strict_json() -> None:
    nested = b"[" * MOST_NESTED + b"]" * MOST_NESTED
    assert json.dumps(parse_json(nested)).encode() == nested
    assert parse_json(rb'"\ud83d\ude00 \\ud83d"') == "😀 \\ud83d"
    assert parse_json(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        (b"application/json", 200),
        (b"application/json; charset=utf-8", 200),
        (b"Application/vnd.api+JSON", 200),
        (b"text/plain", 415),
        (b"application/x-www-form-urlencoded", 415),
        (b"", 415),
    ],
)
def test_content_types(content_type: bytes | None, status: int) -> None:
    headers = [] if content_type is None else [(b"content-type", content_type)]
    reading = read_json({"headers": headers}, Client([b"1"]).receive, ServerSettings())
    if status == 200:
        assert asyncio.run(reading) == 1
    else:
        with pytest.raises(HTTPException, match="Content-Type: application/json") as refused:
            asyncio.run(reading)
        assert status_of(refused) == status


def test_compressed_bodies_are_refused() -> None:
    def reading(encoding: bytes) -> Coroutine[Any, Any, Any]:
        scope = {"headers": [(b"content-encoding", encoding)]}
        return read_json(scope, Client([b"1"]).receive, ServerSettings())

    assert asyncio.run(reading(b"identity")) == 1
    with pytest.raises(HTTPException, match="leave out Content-Encoding: gzip") as refused:
        asyncio.run(reading(b"gzip"))
    assert status_of(refused) == 415
