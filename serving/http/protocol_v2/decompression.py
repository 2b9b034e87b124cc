"""Compressed bodies of requests, without room for those that grow beyond all bounds."""

from __future__ import annotations

import zlib

from starlette.exceptions import HTTPException

WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's name for each value of the header Content-Encoding; deflate has zlib's header, as RFC 9110 says."""


def decompressed(body: bytes, encoding: str | None, most: int) -> bytes:
    """The content of a body.

    Args:
        body: The body as it was sent.
        encoding: The value of the header Content-Encoding, if there is one.
        most: Maximum size of the content in bytes.

    Raises:
        HTTPException: 415 if the encoding is not gzip or deflate; 400 if the body is not of this encoding, cut off, or
            followed by something else; 413 if the content is larger than `most`.
    """
    encoding = (encoding or "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in WINDOW_BITS:
        raise HTTPException(415, f"Content-Encoding must be gzip, deflate or identity, not {encoding[:40]!r}")
    stream = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        content = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise HTTPException(400, f"the body is not {encoding}, as Content-Encoding says: {error}") from error
    if len(content) > most:
        raise HTTPException(413, f"the body is larger than {most} bytes when it is decompressed")
    if not stream.eof:
        raise HTTPException(400, f"the body is cut off: its {encoding} stream does not end")
    if stream.unused_data:
        raise HTTPException(400, f"{len(stream.unused_data)} bytes follow the {encoding} stream of the body")
    return content
