"""`esp_https_ota` of ESP-IDF: the requests that it sends, byte by byte, and what it makes of the answers.

Rules:
- It says nothing of itself but what the application adds; it logs in only once it is asked to.
- What it resumes must come as 206; a 200 makes it begin anew without a range, and a 416 at the first byte.
- In pieces it first asks for the size by HEAD, or by the first byte if HEAD is not answered.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from dataclasses import dataclass, field

OK, IN_PROGRESS = "ESP_OK", "ESP_ERR_HTTPS_OTA_IN_PROGRESS"
NOT_MODIFIED, FAIL = "ESP_ERR_HTTP_NOT_MODIFIED", "ESP_FAIL"
DESCRIPTION_BYTES = 1024
WINDOW_BYTES, BUFFER_BYTES = 5760, 512
"""What the network stack takes without being read, and what the client reads at once."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: what was read of it.
    """

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class EspIdf:
    """One device.

    Attributes:
        port: of the server, on this machine.
        path: of the URL that the application was built with.
        added: headers that the application adds (`http_client_init_cb`).
        login: user and password of the URL.
        slot: what was written to the other slot.
        answers: status of each answer.
    """

    port: int
    path: str
    added: dict[str, str] = field(default_factory=dict)
    login: tuple[str, str] | None = None
    slot: bytearray = field(default_factory=bytearray)
    answers: list[int] = field(default_factory=list)

    async def look(self) -> bytes:
        """Begin, read the description of the image, and abort."""
        return (await self.request("GET", most=DESCRIPTION_BYTES)).body

    async def update(self, *, resume: bool = False, stop_at: int | None = None) -> str:
        """Begin and perform an update in one request; the power goes after `stop_at` bytes of the slot."""
        if not resume:
            self.slot.clear()
        most = None if stop_at is None else stop_at - len(self.slot)
        answer = await self.request("GET", f"bytes={len(self.slot)}-" if resume else "", most)
        if resume and answer.status == 416:
            self.slot.clear()
            answer = await self.request("GET", "bytes=0-", stop_at)
        if resume and answer.status == 200:
            self.slot.clear()
            resume, answer = False, await self.request("GET", "", stop_at)
        return self._written(answer, 206 if resume else 200, stop_at)

    async def update_in_pieces(self, size: int, *, head: bool = True, stop_after: int | None = None) -> str:
        """Begin and perform an update piece by piece; the power goes after so many pieces."""
        self.slot.clear()
        asked = await self.request("HEAD") if head else await self.request("GET", "bytes=0-0")
        if asked.status not in (200, 206):
            return _refused(asked)
        total = int(asked.headers["content-length"] if head else asked.headers["content-range"].split("/")[1])
        pieces = 0
        while len(self.slot) < total:
            if pieces == stop_after:
                return IN_PROGRESS
            at = len(self.slot)
            part = f"bytes={at}-{at + size - 1}" if at + size < total else f"bytes={at}-"
            answer = await self.request("GET", part)
            if answer.status != 206:
                return _refused(answer)
            self.slot += answer.body
            pieces += 1
        return OK

    async def request(self, method: str, part: str = "", most: int | None = None) -> Answer:
        """Send a request, and once more with the login if that is asked for; the answer is read up to `most` bytes."""
        answer = await self._request(method, part, "", most)
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status == 401 and self.login and challenge.startswith("Basic "):
            answer = await self._request(method, part, b64encode(":".join(self.login).encode()).decode(), most)
        return answer

    async def _request(self, method: str, part: str, login: str, most: int | None) -> Answer:
        lines = [f"{method} {self.path} HTTP/1.1", "User-Agent: ESP32 HTTP Client/1.0", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.added.items()]
        lines += [f"Range: {part}"] if part else []
        lines += [f"Authorization: Basic {login}"] if login else []
        with socket.socket() as line:
            line.setblocking(False)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
            wire = _Wire(line)
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", self.port))
            await wire.send("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())
            answer = await _answer(wire, method, most)
        self.answers.append(answer.status)
        return answer

    def _written(self, answer: Answer, wanted: int, stop_at: int | None) -> str:
        if answer.status != wanted:
            return _refused(answer)
        self.slot += answer.body
        return OK if stop_at is None else IN_PROGRESS


class _Wire:
    """One connection. What is not read stays in the network's hands: who closes then resets it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._held = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._line, data)

    async def head(self) -> bytes:
        """Return all up to the empty line."""
        while b"\r\n\r\n" not in self._held:
            self._held += await self._more()
        head, self._held = self._held.split(b"\r\n\r\n", 1)
        return head

    async def body(self, size: int) -> bytes:
        """Return so many bytes."""
        while len(self._held) < size:
            self._held += await self._more()
        return self._held[:size]

    async def _more(self) -> bytes:
        found = await asyncio.get_running_loop().sock_recv(self._line, BUFFER_BYTES)
        if not found:
            raise asyncio.IncompleteReadError(self._held, None)
        return found


async def _answer(wire: _Wire, method: str, most: int | None) -> Answer:
    head = (await wire.head()).decode("latin-1").split("\r\n")
    headers = {}
    for line in filter(None, head[1:]):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    status = int(head[0].split(" ")[1])
    assert "transfer-encoding" not in headers
    size = 0 if method == "HEAD" or status in (204, 304) else int(headers["content-length"])
    return Answer(status, headers, await wire.body(size if most is None else min(size, most)))


def _refused(answer: Answer) -> str:
    return NOT_MODIFIED if answer.status == 304 else FAIL
