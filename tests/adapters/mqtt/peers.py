"""The other ends of a link for tests: a relay that can be cut, a broker that says what the test wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.adapters.mqtt import MqttBus, MqttSettings
from orchestrator.demo.broker import HOST, BrokerInfo
from orchestrator.ports import Bus, Message

UPLINK = ("ota/v1/d/+/report", "ota/v1/d/+/hello")
CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x04\x00\x01\x01\x01"  # MQTT 3.1.1: two topics, packet identifier 1


def settings_for(broker: BrokerInfo | Relay | Script, **changes: Any) -> MqttSettings:
    """Return settings that reach a broker and come back to it fast."""
    plain = MqttSettings(
        HOST, broker.port, "ota-test", reconnect_min_s=0.02, reconnect_max_s=0.1, connect_timeout_s=5.0
    )
    return replace(plain, **changes)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something on another machine has come true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def take(bus: Bus, count: int) -> list[Message]:
    """Take exactly so many messages."""
    taken: list[Message] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await bus.receive(count - len(taken))
    return taken


@asynccontextmanager
async def attached(bus: Bus, *, connected: bool = True) -> AsyncIterator[asyncio.Task[None]]:
    """Run a bus, by default from the moment that it is connected."""
    task = asyncio.create_task(bus.run())
    try:
        if connected:
            await until(lambda: bus.link > 0 or task.done())
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def connected(settings: MqttSettings) -> AsyncIterator[MqttBus]:
    """Run a bus of its own."""
    bus = MqttBus(settings, UPLINK)
    async with attached(bus):
        yield bus


@dataclass
class Relay:
    """Passes bytes between the bus and a broker; what goes to the bus can be held, and everything can be cut."""

    broker: BrokerInfo
    port: int = 0
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def cut(self) -> None:
        """Reset all connections; nobody says goodbye."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def hold(self) -> None:
        """Keep what the broker says."""
        self._flowing.clear()

    def release(self) -> None:
        """Let everything pass."""
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join one connection of the bus with one to the broker."""
        self._writers.append(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(self.broker.host, self.broker.port)
        except OSError:
            return
        self._writers.append(far_writer)
        try:
            await asyncio.gather(self._pass(reader, far_writer, None), self._pass(far_reader, writer, self._flowing))
        finally:
            await _close(far_writer)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event | None
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if flowing is not None:
                    await flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def relay(broker: BrokerInfo) -> AsyncIterator[Relay]:
    """Run a relay in front of a broker."""
    made = Relay(broker)
    made.release()
    async with _listening(made.serve) as port:
        made.port = port
        yield made
        made.release()
        made.cut()


@dataclass
class Script:
    """A broker that says what the test wrote down: where it is, and what it heard on each connection."""

    answers: Sequence[Sequence[bytes]]
    port: int = 0
    heard: list[list[bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give one answer per packet of one connection."""
        heard: list[bytes] = []
        self.heard.append(heard)
        with suppress(OSError, asyncio.IncompleteReadError):
            for pieces in self.answers:
                heard.append(await _packet(reader))
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            while True:
                heard.append(await _packet(reader))


@asynccontextmanager
async def scripted(*answers: Sequence[bytes]) -> AsyncIterator[Script]:
    """Run a broker that gives one answer per packet it hears; further connections begin again.

    Args:
        answers: what follows the first packet, the second one and so on; several pieces leave one by one.
    """
    script = Script(answers)
    async with _listening(script.serve) as port:
        script.port = port
        yield script


@asynccontextmanager
async def _listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            await _close(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(one(reader, writer)))

    server = await asyncio.start_server(accept, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _packet(reader: asyncio.StreamReader) -> bytes:
    first = await reader.readexactly(1)
    length, shift = 0, 0
    while True:
        (byte,) = await reader.readexactly(1)
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return first + await reader.readexactly(length)
