"""The files that the page consists of. It loads nothing from elsewhere, and may not."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response

INDEX = "index.html"
MEDIA_TYPES = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)
HEADERS = MappingProxyType(
    {
        "cache-control": "no-cache",  # browsers ask if their copy is still right, so that an update shows at once
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)


Serve = Callable[[Request], Awaitable[Response]]


def file_routes() -> dict[str, Serve]:
    """What serves each file, by its name. The files are read once, and served from memory."""
    folder = files(__package__) / "static"
    named = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name: _serving(file.read_bytes(), file.name) for file in named}


def _serving(content: bytes, name: str) -> Serve:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "etag": etag}
    media_type = MEDIA_TYPES[name[name.rindex(".") :]]

    async def serve(request: Request) -> Response:
        if _has_copy(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return serve


def _has_copy(if_none_match: str, etag: str) -> bool:
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in if_none_match.split(","))
