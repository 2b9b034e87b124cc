"""HTTP/1.1 over one kept connection, with as little CPU time as possible: the server needs the same cores."""

from __future__ import annotations

import asyncio
import json
import select
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self, cast

import httptools

NO_REPLY = 0
"""In the place of a status: the connection ended before a whole response had arrived."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response.

    Attributes:
        status: HTTP status, or `NO_REPLY`.
        body: Its body.
        sent: Time of `time.monotonic`, which all processes share, just before the request was sent.
        received: The same when the response was complete, or the connection had ended.
        retry_after: The header Retry-After, empty if there is none.
        reused: Whether the connection had served another request before.
    """

    status: int
    body: bytes
    sent: float
    received: float
    retry_after: str = ""
    reused: bool = False

    @property
    def seconds(self) -> float:
        return self.received - self.sent


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a request that keeps its connection."""
    fields = {"host": "127.0.0.1", "content-length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_request(path: str, content: object) -> bytes:
    """The bytes of a POST of JSON."""
    return request("POST", path, json.dumps(content).encode(), {"content-type": "application/json"})


def predict_request(question: str, context: str, parameters: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a POST of one question to /predict."""
    content: dict[str, Any] = {"inputs": {"question": question, "context": context}}
    return json_request("/predict", content | ({"parameters": dict(parameters)} if parameters else {}))


class Connection(asyncio.Protocol):
    """A connection to a server on this machine; use `open`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Reply] | None = None
        self._body: list[bytes] = []
        self._sent = 0.0
        self._retry_after = ""
        self._answered = 0
        self._poll = select.poll()

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect.

        Raises:
            OSError: The server refused, or nobody listens.
        """
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    @property
    def usable(self) -> bool:
        """Whether the server has not closed it. Asks the kernel, which may know before the event loop does."""
        return not self.transport.is_closing() and not self._poll.poll(0)

    async def ask(self, data: bytes) -> Reply:
        """Send a request and wait for its response; if the connection ends before, its status is `NO_REPLY`."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._sent = monotonic()
        if self.transport.is_closing():
            self._finish(NO_REPLY)
        self.transport.write(data)
        return await self._waiter

    def send(self, data: bytes) -> None:
        """Send more bytes of the request."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """End the connection at once, whatever is under way."""
        self.transport.abort()

    # of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()  # then `connection_lost` is called

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(NO_REPLY)

    # of httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.transport.close()
        self._finish(self._parser.get_status_code())

    def _finish(self, status: int) -> None:
        if self._waiter is not None and not self._waiter.done():
            body, reused = b"".join(self._body), self._answered > 0
            self._waiter.set_result(Reply(status, body, self._sent, monotonic(), self._retry_after, reused))
        self._answered += 1
        self._body, self._retry_after = [], ""
