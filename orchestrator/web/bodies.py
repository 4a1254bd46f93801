"""Bodies of requests, read no further than they may be long."""

from __future__ import annotations

from starlette.requests import Request

from orchestrator.errors import PayloadError


async def body_of(request: Request, most_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        PayloadError: it is longer.
        ClientDisconnect: the caller left before it was whole.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise PayloadError(f"at most {most_bytes} bytes are allowed", code="oversize")
    return bytes(body)
