"""HTTP connections: uvicorn's, with limits on the time that a client may take to send a head and to take a response.

uvicorn closes connections that are idle after a request. It waits without end for the first byte of the first request,
for the rest of a head, for the rest of a body after an early response, and for a client that does not read a response.
It keeps heads of any size, and takes the body of a request that asks for another protocol for one in that protocol.
It also answers garbage in plain text, and logs it. `body.py` limits the time of bodies.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ERROR_TYPE_BY_STATUS

MOST_HEAD_BYTES = 65_536
"""Bytes of a request's head after which no more of it is read."""

_logger = logging.getLogger(__name__)
_logger.setLevel(logging.ERROR)  # it also gets a warning for each piece of garbage that a client sends


class Connection(HttpToolsProtocol):
    """A connection; `patient_connection` says how long it waits."""

    patience_s: float
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of the first request."""
        super().connection_made(transport)
        self.logger = _logger
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Take data; if it does not complete the head of a request, wait for the rest."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(431, f"the head of the request is larger than {MOST_HEAD_BYTES} bytes")
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin with the head of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin with a request."""
        self._in_head = False
        self._stop_timer()
        names = {name for name, _ in self.headers}
        if self.parser.should_upgrade() and not names.isdisjoint((b"content-length", b"transfer-encoding")):
            self._refuse(400, "this server speaks HTTP/1.1 alone; leave out the header Upgrade")
            raise _RefusedError  # the parser takes the body for the other protocol
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; what comes next is counted anew."""
        self._head_bytes = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not read its response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on with the response."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and close the connection."""
        self._refuse(400, "this is not a request of HTTP/1.1")

    def _refuse(self, status: int, error: str) -> None:
        if self.transport.is_closing():  # it was refused before
            return
        body = json.dumps({"error": error, "error_type": ERROR_TYPE_BY_STATUS[status]})
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write((head + body).encode())
        self.transport.close()

    def _start_timer(self) -> None:
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(self.patience_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _RefusedError(Exception):
    pass


def patient_connection(patience_s: float) -> type[Connection]:
    """The class of connections that wait so many seconds for the head of a request, and for room to write."""
    attributes: dict[str, Any] = {"patience_s": patience_s}
    return type("PatientConnection", (Connection,), attributes)
