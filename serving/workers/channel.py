"""One end of the socket between the front process and a worker, in an event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from dynamic_tinybert.runtime.common.errors import WorkerLostError

from .messages import Decoder, Message

_logger = logging.getLogger(__name__)


class Channel(asyncio.Protocol):
    """Sends messages, and hands over those that come.

    Attributes:
        received: Called with each message that comes.
    """

    def __init__(self, received: Callable[[Message], None], lost: Callable[[], None]) -> None:
        """Make an end that is not connected; `open_channel` connects it.

        Args:
            received: Called with each message.
            lost: Called once, when no further message will come: the other process closed its end or is gone, it sent
                something that is no message, or this end was closed.
        """
        self.received = received
        self._lost = lost
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            for message in self._decoder.feed(data):
                self.received(message)
        except WorkerLostError:
            _logger.exception("the process at the other end of a socket sent something that is no message")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        self._lost()

    def send(self, frame: bytes) -> None:
        """Send an encoded message; nothing happens if the connection is lost."""
        if self._transport is not None:
            self._transport.write(frame)

    def close(self) -> None:
        """Close the socket without waiting for what has not been sent yet."""
        if self._transport is not None:
            self._transport.abort()


async def open_channel(end: socket.socket, received: Callable[[Message], None], lost: Callable[[], None]) -> Channel:
    """A channel on a connected UNIX socket, which it owns from now on; the arguments are those of `Channel`."""
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_unix_connection(lambda: Channel(received, lost), sock=end)
    return channel
