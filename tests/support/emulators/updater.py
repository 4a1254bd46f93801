"""What the HTTP updaters of the three Arduino cores have in common, in plain sockets.

Rules:
- The request is what the real core sends, byte for byte and in its order; the answer is read as the core reads it.
- Nothing is shared with the server: neither a client library nor a parser of images.
- One poll is one connection. A device that took an image has rebooted when `poll` returns.
"""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

HEADERS_WITHIN_S = 8.0
TOO_LITTLE_SPACE, NO_SIZE, NOT_FOUND, FORBIDDEN, WRONG_CODE = -100, -101, -102, -103, -104
BAD_MD5_TEXT, BAD_HEADER, WRONG_FLASH, UNAUTHORISED, NO_VERSION = -105, -106, -107, -108, -109
STREAM_TIMEOUT, MD5_DIFFERS, BAD_SIGNATURE, ALREADY_RUNNING = 6, 7, 12, 15


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll came to.

    Attributes:
        status: of HTTP, 0 if there was none.
        error: what `getLastError` returns, 0 for none.
        took: whether an image was installed, and the device has rebooted.
        head: the head of the answer as it came.
        version: what the server says with `x-version`.
    """

    status: int
    error: int = 0
    took: bool = False
    head: bytes = b""
    version: str = ""


@dataclass
class Updater:
    """One device. Its core is a subclass.

    Attributes:
        address: host and port of the server.
        flash: the image that runs, as it lies in flash.
        mac: address of its station.
        path: what it asks for.
        login: name and password, None without.
        version: what the sketch calls itself, by image; the last one that is known counts.
        key: modulus of the RSA key whose signatures it enforces, 0 for none.
        room: bytes that an image may have.
        reads: after so many bytes of an image the connection breaks, once.
        spoils: whether one byte of the next image is read wrong.
        bricked: whether it starts no more.
    """

    agent: ClassVar[str] = ""
    address: tuple[str, int]
    flash: bytes
    mac: str = "DE:BA:7A:B1:E0:42"
    path: str = "/ota/arduino"
    login: tuple[str, str] | None = None
    version: str = ""
    versions: dict[bytes, str] = field(default_factory=dict)
    key: int = 0
    room: int = 2_076_672
    reads: int | None = None
    spoils: bool = False
    bricked: bool = False
    wedged: bool = False

    def fields(self, mode: str) -> list[tuple[str, str]]:
        """Return the headers of the core, in its order."""
        raise NotImplementedError

    def begin(self, body_bytes: int, first: bytes) -> int:
        """Return the error with which the core refuses an image before it writes it, 0 for none."""
        raise NotImplementedError

    def install(self, body: bytes) -> int:
        """Put an image into place and reboot; returns the error with which the core refuses it, 0 for none."""
        raise NotImplementedError

    def runs(self, image: bytes) -> bool:
        """Say whether an image runs."""
        return not self.bricked and self.flash == image

    def request(self, mode: str = "sketch") -> bytes:
        """Return what is sent."""
        host, port = self.address
        place = host if port in (80, 443) else f"{host}:{port}"
        lines = [f"GET {self.path} HTTP/1.0", f"Host: {place}", f"User-Agent: {self.agent}"]
        if self.login is not None:
            lines.append("Authorization: Basic " + base64.b64encode(":".join(self.login).encode()).decode())
        lines.append("Connection: close")
        lines += [f"{name}: {value}" for name, value in self.fields(mode)]
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode("latin-1")

    def poll(self, mode: str = "sketch") -> Poll:
        """Ask once, and do what the answer says."""
        assert not self.bricked, "it does not start any more"
        with socket.create_connection(self.address, HEADERS_WITHIN_S) as wire:
            wire.sendall(self.request(mode))
            return self._answered(wire, mode)

    def run_until_current(
        self, image: bytes, *, most: int = 50, between: Callable[[], None] = lambda: None
    ) -> list[Poll]:
        """Poll until an image runs and the server was told so; returns the polls.

        Args:
            image: what shall run in the end.
            most: give up after so many.
            between: called after each.

        Raises:
            TimeoutError: it does not run after so many polls.
        """
        polls: list[Poll] = []
        for _ in range(most):
            told = self.runs(image)
            polls.append(self.poll())
            between()
            if told:
                return polls
        raise TimeoutError(f"another image runs after {most} polls; the last was {polls[-1]}")

    def _answered(self, wire: socket.socket, mode: str) -> Poll:
        head, body = b"", b""
        while b"\r\n\r\n" not in head:
            piece = wire.recv(1460)
            if not piece:
                return Poll(0, -5)
            head += piece
        head, body = head.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        status, named = int(lines[0].split(" ")[1]), self._named(lines[1:])
        poll = Poll(status, head=head, version=named.get("x-version", ""))
        if named.get("transfer-encoding", "chunked") != "chunked":
            return self._failed(poll, -9)
        if mode == "version":
            wrong = WRONG_CODE if status != 200 else 0 if poll.version else NO_VERSION
            return self._failed(poll, wrong)
        if status == 304:
            return poll
        if status != 200:
            codes = {401: UNAUTHORISED, 403: FORBIDDEN, 404: NOT_FOUND}
            return self._failed(poll, codes.get(status, WRONG_CODE))
        length = 0 if "transfer-encoding" in named else int(named.get("content-length", "0"))
        if not length:
            return self._failed(poll, NO_SIZE)
        return self._updated(wire, poll, length, named.get("x-md5", ""), body)

    def _named(self, lines: list[str]) -> dict[str, str]:
        """Return the headers; two of one name are joined, as the cores join them."""
        named: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            lower = name.lower()
            named[lower] = f"{named[lower]},{value.strip()}" if lower in named else value.strip()
        return named

    def _updated(self, wire: socket.socket, poll: Poll, length: int, md5: str, body: bytes) -> Poll:
        if length > self.room:
            return self._failed(poll, TOO_LITTLE_SPACE)
        if self.wedged:
            return self._failed(poll, ALREADY_RUNNING)
        if md5 and len(md5) != 32:
            self.wedged = True  # the updater was begun, and is never ended
            return self._failed(poll, BAD_MD5_TEXT)
        most = length if self.reads is None else min(self.reads, length)
        while len(body) < most and (piece := wire.recv(min(1460, most - len(body)))):
            body += piece
        if self.reads is not None or len(body) < length:
            self.reads = None
            return self._failed(poll, STREAM_TIMEOUT)
        if self.spoils:
            self.spoils, body = False, body[:-1] + bytes([body[-1] ^ 1])
        error = self.begin(length, body[:4])
        if not error and md5 and not self.key and hashlib.md5(body).hexdigest() != md5.lower():
            error = MD5_DIFFERS
        return self._failed(poll, error) if error else self._installed(poll, body)

    def _installed(self, poll: Poll, body: bytes) -> Poll:
        error = self.install(body)
        if error:
            return self._failed(poll, error)
        self.version = self.versions.get(self.flash, self.version)
        return Poll(poll.status, 0, took=True, head=poll.head)

    @staticmethod
    def _failed(poll: Poll, error: int) -> Poll:
        return Poll(poll.status, error, head=poll.head, version=poll.version)


def access_point(mac: str) -> str:
    """Return the other address of the same chip."""
    first, rest = mac[:2], mac[2:]
    return f"{int(first, 16) | 2:02X}{rest}"


def rounded(length: int) -> int:
    """Return a length in whole sectors of flash."""
    return -(-length // 4096) * 4096
