"""A receiver of webhooks over real HTTP, which answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Got:
    """One request.

    Attributes:
        path: with its query.
        headers: with names in lower case.
        body: as it came.
    """

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """Where webhooks go.

    Attributes:
        url: its address.
        got: all requests, in order.
        status: what is answered.
        extra: more header lines of the answer.
        hangs: whether no answer comes.
        port: where it listens.
    """

    url: str = ""
    got: list[Got] = field(default_factory=list)
    status: int = 204
    extra: str = ""
    hangs: bool = False
    port: int = 0

    @property
    def types(self) -> list[str]:
        return [got.event["type"] for got in self.got]

    @property
    def ids(self) -> list[str]:
        return [got.id for got in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError:  # the sender died
            writer.close()
            return
        self.got.append(Got(first.split()[1], headers, body))
        if self.hangs:
            await reader.read()
        else:
            writer.write(f"HTTP/1.1 {self.status} Said\r\nContent-Length: 0\r\n{self.extra}\r\n".encode())
        writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on loopback."""
    here = Receiver()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    here.url = f"http://127.0.0.1:{here.port}/ota"
    async with server:
        yield here
