"""What every bus promises: on a real mosquitto with MQTT 5 and with 3.1.1, and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiomqtt
import pytest

from orchestrator.adapters.mqtt import MqttBus, MqttSettings
from orchestrator.errors import UnavailableError
from orchestrator.ports import Bus, Message
from tests.adapters.mqtt.peers import UPLINK, Relay, attached, relay, settings_for, take, until
from tests.support.broker import StartBroker
from tests.support.bus import MemoryBus

REPORT = "ota/v1/d/d1/report"
COMMAND = "ota/v1/d/d1/cmd"


class Place(Protocol):
    """A bus, a device beside it, and a link between them that can be broken."""

    def bus(self) -> Bus:
        """Return a bus of the daemon; on a broker all of them share one session."""
        ...

    async def say(self, *payloads: bytes) -> None:
        """Let the device publish reports."""
        ...

    async def break_link(self, bus: Bus) -> int:
        """Break the connection and wait for the next one; returns its number."""
        ...


@dataclass(frozen=True)
class Line:
    """A `Place` with a real broker and a relay before it."""

    settings: MqttSettings
    relay: Relay
    device: aiomqtt.Client

    def bus(self) -> MqttBus:
        return MqttBus(self.settings, UPLINK)

    async def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            await self.device.publish(REPORT, payload, qos=1)

    async def break_link(self, bus: Bus) -> int:
        before = bus.link
        self.relay.cut()
        await until(lambda: bus.link > before)
        return bus.link


@dataclass(frozen=True)
class Memory:
    """A `Place` in memory."""

    broker: MemoryBus

    def bus(self) -> MemoryBus:
        return self.broker

    async def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.broker.deliver(REPORT, payload)

    async def break_link(self, bus: Bus) -> int:
        self.broker.go_down()
        assert bus.link == 0
        self.broker.come_up()
        return bus.link


@asynccontextmanager
async def line_to(start_broker: StartBroker, protocol: str) -> AsyncIterator[Line]:
    broker = await start_broker()
    async with relay(broker) as between, aiomqtt.Client(broker.host, broker.port, identifier="d1") as device:
        yield Line(settings_for(between, version_5=protocol == "MQTT 5"), between, device)


@pytest.fixture(params=["MQTT 5", "MQTT 3.1.1"])
async def line(request: pytest.FixtureRequest, start_broker: StartBroker) -> AsyncIterator[Line]:
    async with line_to(start_broker, request.param) as made:
        yield made


@pytest.fixture
async def wired(line: Line) -> AsyncIterator[MqttBus]:
    async with attached(made := line.bus()):
        yield made


@pytest.fixture(params=["MQTT 5", "MQTT 3.1.1", "memory"])
async def place(request: pytest.FixtureRequest, start_broker: StartBroker) -> AsyncIterator[Place]:
    if request.param == "memory":
        yield Memory(MemoryBus())
        return
    async with line_to(start_broker, request.param) as made:
        yield made


@pytest.fixture
async def bus(place: Place) -> AsyncIterator[Bus]:
    async with attached(made := place.bus()):
        yield made


def payloads(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


async def test_messages_come_in_order_with_their_topic(place: Place, bus: Bus) -> None:
    said = [b"%d" % number for number in range(200)]
    await place.say(*said)
    heard = await take(bus, 200)
    assert payloads(heard) == said
    assert {(message.topic, message.retained) for message in heard} == {(REPORT, False)}


async def test_receive_gives_no_more_than_asked_and_need_not_wait(place: Place, bus: Bus) -> None:
    assert await bus.receive(10, wait=False) == []
    await place.say(b"a", b"b", b"c")
    assert payloads(await take(bus, 1)) == [b"a"]
    assert payloads(await take(bus, 2)) == [b"b", b"c"]
    assert await bus.receive(10, wait=False) == []


async def test_what_was_not_acknowledged_comes_again(place: Place, bus: Bus) -> None:
    await place.say(b"a", b"b", b"c")
    first = await take(bus, 3)
    bus.ack(first[:1])
    await place.say(b"d")
    await take(bus, 1)
    await place.break_link(bus)
    assert payloads(await take(bus, 3)) == [b"b", b"c", b"d"]


async def test_what_was_not_even_taken_comes_again_once(place: Place, bus: Bus) -> None:
    await place.say(b"a", b"b")
    await take(bus, 1)
    await place.break_link(bus)
    again = await take(bus, 2)
    assert payloads(again) == [b"a", b"b"]
    bus.ack(again)
    await place.say(b"c")
    assert payloads(await take(bus, 1)) == [b"c"]


async def test_receipts_of_an_older_link_are_ignored(place: Place, bus: Bus) -> None:
    await place.say(b"a", b"b")
    old = await take(bus, 2)
    await place.break_link(bus)
    again = await take(bus, 2)
    bus.ack(old)
    await place.break_link(bus)
    assert payloads(await take(bus, 2)) == [b"a", b"b"]
    assert {message.receipt for message in old}.isdisjoint(message.receipt for message in again)


async def test_acknowledged_messages_never_come_again(place: Place, bus: Bus) -> None:
    await place.say(b"a", b"b")
    bus.ack(await take(bus, 2))
    await place.say(b"c")
    await take(bus, 1)  # by now the broker has read the acknowledgements
    await place.break_link(bus)
    assert payloads(await take(bus, 1)) == [b"c"]
    assert await bus.receive(10, wait=False) == []


async def test_acknowledging_twice_or_nothing_is_no_harm(place: Place, bus: Bus) -> None:
    bus.ack([])
    await place.say(b"a")
    taken = await take(bus, 1)
    bus.ack(taken)
    bus.ack(taken)
    await place.say(b"b")
    assert payloads(await take(bus, 1)) == [b"b"]


async def test_a_receiver_waits_across_a_broken_link(place: Place, bus: Bus) -> None:
    receiving = asyncio.ensure_future(take(bus, 1))
    await place.break_link(bus)
    await place.say(b"a")
    assert payloads(await receiving) == [b"a"]


async def test_the_link_number_rises_with_each_connection(place: Place, bus: Bus) -> None:
    first = bus.link
    second = await place.break_link(bus)
    assert await place.break_link(bus) > second > first > 0


async def test_what_is_said_while_nobody_listens_is_kept(line: Line) -> None:
    async with attached(line.bus()):
        pass
    await line.say(b"a", b"b")
    bus = line.bus()
    async with attached(bus):
        assert payloads(await take(bus, 2)) == [b"a", b"b"]


async def test_what_a_dead_process_had_in_hand_comes_again(line: Line) -> None:
    dead = line.bus()
    async with attached(dead) as task:
        await line.say(b"a", b"b")
        bus_had = await take(dead, 2)
        dead.ack(bus_had[:0])
        line.relay.cut()
        task.cancel()
    bus = line.bus()
    async with attached(bus):
        again = await take(bus, 2)
        assert payloads(again) == [b"a", b"b"]
        bus.ack(again)
        await line.say(b"c")
        assert payloads(await take(bus, 1)) == [b"c"]


async def test_without_a_connection_the_link_is_0(line: Line) -> None:
    bus = line.bus()
    assert bus.link == 0
    async with attached(bus):
        assert bus.link == 1
    assert bus.link == 0


async def test_publish_returns_after_the_acknowledgement(line: Line, wired: MqttBus) -> None:
    await line.device.subscribe(COMMAND, qos=1)
    line.relay.hold()
    publishing = asyncio.create_task(wired.publish(COMMAND, b"install", expiry_s=60))
    heard = await anext(line.device.messages)
    assert (str(heard.topic), heard.payload, heard.retain) == (COMMAND, b"install", False)
    assert not publishing.done()
    line.relay.release()
    await publishing


async def test_publications_arrive_in_order(line: Line, wired: MqttBus) -> None:
    await line.device.subscribe(COMMAND, qos=1)
    await asyncio.gather(*(wired.publish(COMMAND, b"%d" % number, expiry_s=60) for number in range(50)))
    heard = [(await anext(line.device.messages)).payload for _ in range(50)]
    assert heard == [b"%d" % number for number in range(50)]


async def test_what_is_retained_reaches_those_who_come_later(line: Line, wired: MqttBus) -> None:
    await wired.publish("ota/v1/keys/2", b"keyset", expiry_s=60, retain=True)
    await wired.publish(COMMAND, b"install", expiry_s=60)
    await line.device.subscribe([("ota/v1/keys/+", 1), (COMMAND, 1)])
    heard = await anext(line.device.messages)
    assert (str(heard.topic), heard.payload, heard.retain) == ("ota/v1/keys/2", b"keyset", True)
    await wired.publish(COMMAND, b"recall", expiry_s=60)
    assert (await anext(line.device.messages)).payload == b"recall"


async def test_publish_fails_when_the_link_breaks_first(line: Line, wired: MqttBus) -> None:
    line.relay.hold()
    publishing = asyncio.create_task(wired.publish(COMMAND, b"install", expiry_s=60))
    await asyncio.sleep(0)
    line.relay.cut()
    with pytest.raises(UnavailableError) as caught:
        await publishing
    assert caught.value.code == "link_broken"
    line.relay.release()


async def test_publish_fails_at_once_without_a_link(line: Line) -> None:
    with pytest.raises(UnavailableError) as caught:
        await line.bus().publish(COMMAND, b"install", expiry_s=60)
    assert caught.value.code == "link_broken"
