"""Publishes prepared reports at QoS 1 over many connections, as fast as the broker takes them.

Run as `python -m benchmarks.load PORT FILE`; FILE holds one JSON array `[device, payload]` per line.
MQTT 3.1.1 is written by hand here, so that the load is never the limit of what is measured.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from functools import partial
from pathlib import Path

CONNECTIONS = 20
WINDOW = 100
_PUBACK_BYTES = 4


def _length(size: int) -> bytes:
    coded = bytearray()
    while True:
        size, digit = divmod(size, 128)
        coded.append(digit | (128 if size else 0))
        if not size:
            return bytes(coded)


def connect(client_id: str, keep_alive_s: int = 60) -> bytes:
    """Return the packet that opens a session."""
    body = b"\x00\x04MQTT\x04\x02" + struct.pack("!HH", keep_alive_s, len(client_id)) + client_id.encode()
    return b"\x10" + _length(len(body)) + body


def publication(mid: int, topic: str, payload: bytes) -> bytes:
    """Return the packet that publishes at QoS 1."""
    body = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!H", mid) + payload
    return b"\x32" + _length(len(body)) + body


class Publisher(asyncio.Protocol):
    """One connection: keeps `WINDOW` publications under way."""

    def __init__(self, name: str, packets: list[bytes], done: asyncio.Future[None]) -> None:
        self._name = name
        self._packets = packets
        self._done = done
        self._sent = 0
        self._acked = -1  # the first four bytes are the CONNACK
        self._rest = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(connect(self._name))

    def data_received(self, data: bytes) -> None:
        whole, self._rest = divmod(self._rest + len(data), _PUBACK_BYTES)
        self._acked += whole
        until = min(self._acked + WINDOW, len(self._packets))
        if until > self._sent:
            self._transport.write(b"".join(self._packets[self._sent : until]))
            self._sent = until
        if self._acked >= len(self._packets) and not self._done.done():
            self._transport.write(b"\xe0\x00")
            self._transport.close()
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"the broker closed the connection: {exc}"))


async def publish(port: int, reports: list[tuple[str, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    waits = []
    for number in range(CONNECTIONS):
        mine = reports[number::CONNECTIONS]
        packets = [
            publication(place % 65_535 + 1, f"ota/v1/d/{device}/report", payload)
            for place, (device, payload) in enumerate(mine)
        ]
        done = loop.create_future()
        name = f"load-{number}"
        await loop.create_connection(partial(Publisher, name, packets, done), "127.0.0.1", port)
        waits.append(done)
    await asyncio.gather(*waits)


def main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    asyncio.run(publish(port, [(device, payload.encode()) for device, payload in lines]))


if __name__ == "__main__":
    main()
