"""Many connected devices in a process of their own, which do what a trigger says and note when it came.

Run as `python -m benchmarks.crowd PORT COUNT MODE`. It prints `ready` when all have subscribed, and what came, as JSON,
when its input ends. Devices take no time for what they do, and do not verify: what is measured is the orchestrator.

- `update`: on a trigger a device accepts, downloads, installs, runs and confirms.
- `break`: the same with release counter 2; from counter 3 on a device rolls back.
- `dwell`: on a trigger a device accepts and reports progress; all devices together report steadily.

A recall is obeyed in every mode. MQTT 3.1.1 is written by hand here, as in `benchmarks.load`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import sys
import time
from functools import partial
from typing import Any

from benchmarks.load import connect, publication

OPENED = 50
"""Connections that are opened together."""
RATE = 250
"""Reports a second of all devices together while they dwell."""
KEEP_ALIVE_S = 1800
WORDS = {
    "update": ("accepted", "downloaded", "installed", "running", "confirmed"),
    "break": ("accepted", "downloaded", "installed", "running", "confirmed"),
    "dwell": ("accepted",),
}
BROKEN = ("accepted", "downloaded", "installed", "rolled_back")
BROKEN_FROM = 3
NEW = ("running", "confirmed")
_CONNACK, _PUBLISH, _SUBACK = 2, 3, 9


class Device(asyncio.Protocol):
    """One device on one connection."""

    def __init__(
        self, name: str, mode: str, ready: asyncio.Future[None], came: list[tuple[float, str, str, str]]
    ) -> None:
        self.name = name
        self.att = ""
        self._breaks = mode == "break"
        self._words = WORDS[mode]
        self._rel = 1
        self._ready = ready
        self._came = came
        self._said = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(connect(self.name, KEEP_ALIVE_S))

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (packet := self._packet()) is not None:
            kind, body = packet[0] >> 4, packet[1]
            if kind == _CONNACK:
                topic = f"ota/v1/d/{self.name}/cmd".encode()
                self._transport.write(
                    b"\x82" + bytes([len(topic) + 5]) + b"\0\1" + struct.pack("!H", len(topic)) + topic + b"\1"
                )
            elif kind == _SUBACK:
                self._ready.set_result(None)
            elif kind == _PUBLISH:
                self._hear(body)

    def say(self, kind: str, **more: Any) -> None:
        """Publish a report on the present attempt."""
        self._said += 1
        rel = self._rel if kind in NEW else 1
        fields = {"v": 1, "dev": self.name, "att": self.att, "boot": "crowd", "n": self._said, "kind": kind, "rel": rel}
        self._write("report", fields | more)

    def greet(self) -> None:
        """Publish a hello."""
        self._write("hello", {"v": 1, "dev": self.name, "model": "bench", "ver": "1", "rel": 1})

    def _write(self, channel: str, fields: dict[str, Any]) -> None:
        payload = json.dumps(fields, separators=(",", ":")).encode()
        mid = self._said % 65_535 + 1
        self._transport.write(publication(mid, f"ota/v1/d/{self.name}/{channel}", payload))

    def _packet(self) -> tuple[int, bytes] | None:
        """Return the next whole packet: its first byte, and what follows its length."""
        size, shift, at = 0, 0, 1
        while at < len(self._rest):
            digit = self._rest[at]
            size, shift, at = size | (digit & 127) << shift, shift + 7, at + 1
            if digit < 128:
                break
        else:
            return None
        if len(self._rest) < at + size:
            return None
        packet = self._rest[0], self._rest[at : at + size]
        self._rest = self._rest[at + size :]
        return packet

    def _hear(self, body: bytes) -> None:
        after = 2 + int.from_bytes(body[:2], "big")
        self._transport.write(b"\x40\x02" + body[after : after + 2])
        claims = body[after + 2 :].split(b"\n")[0].split(b".")[1]
        said = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
        self._came.append((time.monotonic(), self.name, said["act"], said["cid"]))
        self.att = said["att"]
        if said["act"] == "install":
            self._rel = said["rel"]
            for word in BROKEN if self._breaks and self._rel >= BROKEN_FROM else self._words:
                self.say(word)
        else:
            self.say("recalled")
            self.att = ""


async def _live(port: int, count: int, mode: str) -> None:
    loop = asyncio.get_running_loop()
    came: list[tuple[float, str, str, str]] = []
    devices: list[Device] = []
    for first in range(0, count, OPENED):
        waits = []
        for number in range(first, min(first + OPENED, count)):
            ready = loop.create_future()
            device = Device(f"dev-{number:06d}", mode, ready, came)
            devices.append(device)
            waits.append(ready)
            await loop.create_connection(partial(_same, device), "127.0.0.1", port)
        await asyncio.gather(*waits)
    print("ready", flush=True)
    talk = asyncio.create_task(_dwell(devices)) if mode == "dwell" else None
    await asyncio.to_thread(sys.stdin.read)
    if talk is not None:
        talk.cancel()
    print(json.dumps(came), flush=True)


def _same(device: Device) -> Device:
    return device


async def _dwell(devices: list[Device]) -> None:
    number, begun = 0, time.monotonic()
    while True:
        await asyncio.sleep(max(begun + number / RATE - time.monotonic(), 0.0))
        device = devices[number % len(devices)]
        if device.att:
            device.say("progress", pct=number % 100)
        else:
            device.greet()
        number += 1


def main() -> None:
    """Live until the input ends."""
    asyncio.run(_live(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))


if __name__ == "__main__":
    main()
