"""A fleet on stage: a real broker, a real HTTP server, and a stand-in for the daemon that hears everything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from ssl import SSLContext
from typing import Any

import aiomqtt

from orchestrator.demo.broker import BrokerInfo
from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.credentials import Credential
from orchestrator.sim.fleet import Fleet, Surroundings
from orchestrator.sim.outbox import Parcel
from orchestrator.sim.profile import cast
from orchestrator.sim.push import Broker
from orchestrator.sim.tally import Tally
from orchestrator.wire.report import Kind, Report, decode_report
from orchestrator.wire.topics import command, parse_uplink, uplink_filters
from tests.sim.issuer import Build, Issuer
from tests.sim.web import Web

FAST = 2000.0


@dataclass
class Heard:
    device: str
    channel: str
    payload: bytes
    retained: bool

    @property
    def said(self) -> Any:
        return json.loads(self.payload)


@dataclass
class Ear:
    """Hears all that devices publish, and publishes commands."""

    client: aiomqtt.Client
    heard: list[Heard] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        async for message in self.client.messages:
            topic = parse_uplink(str(message.topic))
            assert isinstance(message.payload, bytes)
            async with self.news:
                self.heard.append(Heard(topic.device, str(topic.channel), message.payload, message.retain))
                self.news.notify_all()

    async def send(self, device: str, payload: bytes) -> None:
        await self.client.publish(command(device), payload, qos=1)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(condition)

    def of(self, channel: str, device: str | None = None) -> list[Heard]:
        return [each for each in self.heard if each.channel == channel and device in (None, each.device)]

    def reports(self, device: str) -> list[Report]:
        return [decode_report(each.payload, device) for each in self.of("report", device)]

    def kinds(self, device: str) -> list[Kind]:
        return [report.kind for report in self.reports(device)]

    async def until_online(self, devices: Iterable[str]) -> None:
        await self.wait_for(lambda: all(self.of("hello", device) for device in devices))

    async def until_said(self, kind: Kind, devices: Iterable[str]) -> None:
        await self.wait_for(lambda: all(kind in self.kinds(device) for device in devices))


@asynccontextmanager
async def ear(broker: BrokerInfo) -> AsyncIterator[Ear]:
    async with aiomqtt.Client(broker.host, broker.port) as client:
        for each in uplink_filters():
            await client.subscribe(each, qos=1)
        listening = Ear(client)
        task = asyncio.create_task(listening.listen())
        try:
            yield listening
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Watched(Tally):
    """A tally that a test can wait on."""

    def __init__(self, journal: BytesIO) -> None:
        super().__init__(time.time, journal)
        self.seen: list[tuple[str, str, str]] = []
        self.news = asyncio.Event()

    def __call__(self, device: str, event: str, *, code: str = "", att: str = "", parcel: Parcel | None = None) -> None:
        super().__call__(device, event, code=code, att=att, parcel=parcel)
        self.seen.append((device, event, code))
        self.news.set()


@dataclass
class Played:
    """A running fleet; the journal and the summary are there once it ended."""

    tally: Watched
    summary: dict[str, Any] = field(default_factory=dict)
    journal: list[dict[str, Any]] = field(default_factory=list)

    async def until(self, device: str, event: str, code: str = "") -> None:
        async with asyncio.timeout(20):
            while (device, event, code) not in self.tally.seen:
                self.tally.news.clear()
                await self.tally.news.wait()

    def events(self, device: str) -> list[str]:
        return [entry["event"] for entry in self.journal if entry["device"] == device]


@asynccontextmanager
async def fleet(
    behaviour: Behaviour,
    issuer: Issuer,
    *,
    broker: BrokerInfo | None = None,
    server: Web | None = None,
    origins: Iterable[str] = (),
    tls: SSLContext | None = None,
    credentials: Mapping[str, Credential] | None = None,
) -> AsyncIterator[Played]:
    own = [] if server is None else [server.origin]
    trust = issuer.trust(*own, *origins, loopback=True)
    profiles = cast(behaviour, dict.fromkeys(behaviour.device_ids()), trust, run="t")
    journal = BytesIO()
    around = Surroundings(
        None if broker is None else Broker(broker.host, broker.port, tls),
        "" if server is None else server.origin,
        connects_per_s=1000.0,
    )
    tally = Watched(journal)
    actors = Fleet(profiles, credentials or {}, around, tally)
    stop = asyncio.Event()
    running = asyncio.create_task(actors.run(stop))
    played = Played(tally)
    try:
        yield played
    finally:
        stop.set()
        played.summary = await running
        played.journal = [json.loads(line) for line in journal.getvalue().splitlines()]


def offer(issuer: Issuer, device: str, build: Build, server: Web, att: str = "1.1", **changes: Any) -> bytes:
    """Sign an offer that is valid now and leads to `/a` on a server."""
    url = changes.pop("url", [f"{server.origin}/a"])
    return issuer.install(device, build, att, now=time.time(), url=url, **changes)
