"""Devices by hand, and a service that gates ask: both say exactly what the test wants to be said.

Rules:
- A hand believes every trigger: what is verified, downloaded and installed is for the simulated devices to show.
- What it says to which attempt is an attribute, so that a test can make it fail once, or be sick.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import aiomqtt
from msgspec import structs

from orchestrator.demo.broker import HOST, BrokerInfo
from orchestrator.wire.report import Hello, Kind, OwnFacts, Report, State, encode
from orchestrator.wire.topics import Channel, command, uplink
from tests.support.observer import claims_of


@dataclass(frozen=True, slots=True)
class Word:
    """What a hand says: the kind of the report, its code, and what it measured."""

    kind: Kind
    code: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


Answer = Callable[[int], Iterable[Word]]
"""What a hand says to an attempt, by its number."""


def healthy(_attempt: int = 1, **metrics: float) -> list[Word]:
    """Return the words of a device on which all goes well."""
    return [Word(Kind.ACCEPTED), Word(Kind.INSTALLED), Word(Kind.CONFIRMED, metrics=metrics)]


def broken_at_first(*words: Word) -> Answer:
    """Return what a device says whose first attempt ends with these words, and whose others go well."""
    return lambda attempt: words if attempt == 1 else healthy()


class Hand:
    """One device on the broker.

    Attributes:
        name: its identifier.
        answer: what it says to an attempt.
        rel: release counter that it says it runs.
        boots: its boot counter; each boot has an identifier of its own.
        attempts: every attempt that it was told of.
    """

    def __init__(self, name: str, model: str, client: aiomqtt.Client) -> None:
        self.name = name
        self.answer: Answer = healthy
        self.rel = 1
        self.boots = 1
        self.attempts: list[str] = []
        self._model = model
        self._client = client
        self._numbers = count()

    async def serve(self) -> None:
        """Say hello, then answer every trigger, until cancelled."""
        await self._client.subscribe(command(self.name), qos=1)
        await self.be(online=True)
        await self.greet()
        async for message in self._client.messages:
            await self._obey(bytes(message.payload))

    async def be(self, *, online: bool) -> None:
        """Say that it is connected, or what its last will says when it is not."""
        await self._say(Channel.STATE, encode(State(v=1, dev=self.name, online=online)))

    async def greet(self, facts: OwnFacts | None = None) -> None:
        """Say hello as what it is now."""
        hello = Hello(v=1, dev=self.name, model=self._model, ver=f"{self.rel}.0.0", rel=self.rel, facts=facts)
        await self._say(Channel.HELLO, encode(structs.replace(hello, boot=self._boot, boots=self.boots)))

    async def come_back(self, rel: int, *, boots: int) -> None:
        """Boot so many times more, and say hello with what runs then."""
        self.rel, self.boots = rel, self.boots + boots
        await self.greet()

    @property
    def _boot(self) -> str:
        return f"by-hand-{self.boots}"

    async def _obey(self, bundle: bytes) -> None:
        trigger = claims_of(bundle)
        if trigger["act"] != "install" or trigger["att"] in self.attempts:
            return
        self.attempts.append(trigger["att"])
        statement = claims_of(bundle.split(b"\n")[1])
        for word in self.answer(int(trigger["att"].partition(".")[2])):
            if word.kind is Kind.CONFIRMED:
                self.rel = statement["rel"]
            await self._say(Channel.REPORT, encode(self._report(trigger["att"], word, statement["ver"])))

    def _report(self, att: str, word: Word, version: str) -> Report:
        return Report(
            v=1,
            dev=self.name,
            att=att,
            boot=self._boot,
            boots=self.boots,
            n=next(self._numbers),
            kind=word.kind,
            ver=version if word.kind is Kind.CONFIRMED else "",
            rel=self.rel,
            code=word.code,
            metrics=dict(word.metrics),
        )

    async def _say(self, channel: Channel, payload: bytes) -> None:
        await self._client.publish(uplink(self.name, channel), payload, qos=1)


@asynccontextmanager
async def hands(broker: BrokerInfo, model: str, passwords: Mapping[str, str]) -> AsyncIterator[list[Hand]]:
    """Connect hands, one for each login, and let them answer."""
    async with AsyncExitStack() as stack:
        made = []
        for name, password in passwords.items():
            client = aiomqtt.Client(
                broker.host, broker.port, identifier=name, username=name, password=password, clean_session=True
            )
            made.append(Hand(name, model, await stack.enter_async_context(client)))
        tasks = [asyncio.create_task(each.serve()) for each in made]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


@dataclass(slots=True)
class Service:
    """A service on loopback that answers every request with the same document.

    Attributes:
        port: where it listens.
        document: what it answers.
        asked: the paths that were asked for.
    """

    port: int = 0
    document: object = None
    asked: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """Where it is, as `gates.origins` lists it."""
        return f"http://{HOST}:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.split(b" ")[1].decode())
            body = json.dumps(self.document).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """Run a service on a free port."""
    made = Service()
    server = await asyncio.start_server(made.answer, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
