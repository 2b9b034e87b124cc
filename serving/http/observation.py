"""What goes around every request: its metrics, and the end of connections while the server drains."""

from __future__ import annotations

from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynamic_tinybert.serving.jobs import Backend

from .errors import ERROR_TYPE, ERROR_TYPE_BY_STATUS
from .metrics import Metrics

HUNG_UP = 499
"""Status in the metrics of requests whose client hung up before it had a response."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observed:
    """ASGI middleware that counts requests, and asks clients of a draining server to connect anew."""

    def __init__(self, app: ASGIApp, backend: Backend, metrics: Metrics) -> None:
        """Go around `app`."""
        self._app = app
        self._backend = backend
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        status = HUNG_UP

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._backend.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except ClientDisconnect:
            scope[ERROR_TYPE] = "client_disconnected"
        except Exception:
            status = 500
            scope[ERROR_TYPE] = ERROR_TYPE_BY_STATUS[500]
            raise
        finally:
            route = scope["route"].path if "route" in scope else "other"
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.count_request(route, method, status, perf_counter() - start, scope.get(ERROR_TYPE))
