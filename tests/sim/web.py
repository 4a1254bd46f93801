"""A small HTTP server on loopback that serves ranges, and misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.sim.issuer import Build, digest


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to send; `cut_after` breaks the connection after so many bytes of the body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None


Handler = Callable[[Asked], Answer]


class Web:
    """Answers by path; keeps what it was asked, and lets a test wait for it."""

    def __init__(self) -> None:
        self.routes: dict[str, Handler] = {}
        self.asked: list[Asked] = []
        self.origin = ""
        self._news = asyncio.Condition()

    def requests(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path.partition("?")[0] == path]

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _read(reader)) is not None:
                handler = self.routes.get(asked.path.partition("?")[0])
                answer = Answer(404) if handler is None else handler(asked)
                writer.write(_head(answer) + answer.body[: answer.cut_after])
                await writer.drain()
                async with self._news:
                    self.asked.append(asked)
                    self._news.notify_all()
                if answer.cut_after is not None:
                    return
        except ConnectionError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def web(host: str = "127.0.0.1") -> AsyncIterator[Web]:
    site = Web()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.origin = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield site
        server.close()


def artifact(build: Build) -> Handler:
    """Serve a build as an object store does: ranges, a strong ETag, `If-Range`."""
    etag = f'"{digest(build.data)}"'

    def handler(asked: Asked) -> Answer:
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if wanted is None or asked.headers.get("if-range", etag) != etag:
            return Answer(200, build.data, {"etag": etag})
        first, size = int(wanted[1]), len(build.data)
        return Answer(206, build.data[first:], {"etag": etag, "content-range": f"bytes {first}-{size - 1}/{size}"})

    return handler


def _head(answer: Answer) -> bytes:
    headers = {"content-length": str(len(answer.body)), **answer.headers}
    if answer.status == 204:
        headers = dict(answer.headers)
    lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
