"""HTTP connections: uvicorn's, with limits on the time that a client may take to send a head and to take a response.

uvicorn closes connections that are idle after a request. It waits without end for the first byte of the first request,
for the rest of a head, for the rest of a body after an early response, and for a client that does not read a response.
It also answers garbage in plain text, and logs it. `body.py` limits the time of bodies.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ERROR_TYPE_BY_STATUS

_logger = logging.getLogger(__name__)
_logger.setLevel(logging.ERROR)  # it also gets a warning for each piece of garbage that a client sends


class Connection(HttpToolsProtocol):
    """A connection; `patient_connection` says how long it waits."""

    patience_s: float
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of the first request."""
        super().connection_made(transport)
        self.logger = _logger
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Take data; if it does not complete the head of a request, wait for the rest."""
        super().data_received(data)
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()

    def on_headers_complete(self) -> None:
        """Begin with a request."""
        self._stop_timer()
        super().on_headers_complete()

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
        body = json.dumps({"error": "this is not a request of HTTP/1.1", "error_type": ERROR_TYPE_BY_STATUS[400]})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
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


def patient_connection(patience_s: float) -> type[Connection]:
    """The class of connections that wait so many seconds for the head of a request, and for room to write."""
    attributes: dict[str, Any] = {"patience_s": patience_s}
    return type("PatientConnection", (Connection,), attributes)
