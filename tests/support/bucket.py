"""Fixtures that give tests a real S3 server, and a server whose answers the test writes itself.

Rules:
- `bucket_endpoint` is one moto server per test process; every test makes buckets of its own (`new_name`).
- moto refuses nothing and never breaks: what Amazon says when it does comes from `Scripted`, over real HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest_asyncio

from orchestrator.adapters.s3 import S3Settings, S3Source
from orchestrator.demo import bucket


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bucket_endpoint() -> AsyncIterator[str]:
    """Endpoint of a running S3 server."""
    async with bucket.bucket_server() as endpoint:
        yield endpoint


def new_name() -> str:
    """Return a bucket name that no other test has."""
    return f"b-{uuid4().hex}"


def settings(endpoint: str, *, attempts: int = 4, timeout_s: float = 10) -> S3Settings:
    """Return settings for a server of ours."""
    return S3Settings(
        endpoint,
        bucket.REGION,
        bucket.ACCESS_KEY_ID,
        bucket.SECRET_ACCESS_KEY,
        attempts=attempts,
        timeout_s=timeout_s,
    )


@contextmanager
def opened(source: S3Source) -> Iterator[S3Source]:
    """Close the source at the end."""
    try:
        yield source
    finally:
        source.close()


@dataclass(frozen=True)
class Request:
    """What a client asked: method, path with query, headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What the server says; with `promised` the body breaks off before that many bytes."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None


@dataclass
class Scripted:
    """A running server: where it is and what it was asked."""

    endpoint: str
    requests: list[Request]


@contextmanager
def scripted(answer: Callable[[Request], Answer]) -> Iterator[Scripted]:
    """Run an HTTP server on loopback that answers as the function says."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            requests.append(request)
            said = answer(request)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body) if said.promised is None else said.promised))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Scripted(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def error_document(code: str, **more: str) -> bytes:
    """Return the XML that S3 sends with an error."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, **more}.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
