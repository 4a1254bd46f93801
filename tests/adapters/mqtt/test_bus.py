"""The bus on MQTT, beyond what the contract says: reconnecting, back-pressure, hostile bytes."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.mqtt import MqttBus
from orchestrator.adapters.mqtt import bus as bus_module
from orchestrator.demo import broker as brokers
from orchestrator.demo.broker import BrokerInfo, free_port
from orchestrator.errors import UnavailableError
from tests.adapters.mqtt.peers import (
    CONNACK,
    SUBACK,
    UPLINK,
    attached,
    connected,
    relay,
    scripted,
    settings_for,
    take,
    until,
)

REPORT = "ota/v1/d/d1/report"
SUBACK_5 = b"\x90\x05\x00\x01\x00\x01\x01"
CONNACK_5 = b"\x20\x03\x00\x00\x00"


def device(broker: BrokerInfo) -> aiomqtt.Client:
    return aiomqtt.Client(broker.host, broker.port, identifier="d1", protocol=aiomqtt.ProtocolVersion.V5)


def publication(payload: bytes, topic: bytes = REPORT.encode(), mid: int = 1) -> bytes:
    """Return a PUBLISH of MQTT 3.1.1 at QoS 1, or at QoS 0 where `mid` is 0."""
    body = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if mid else b"") + payload
    length, left = b"", len(body)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return (b"\x32" if mid else b"\x30") + length + bytes([left]) + body


def test_paho_still_makes_its_socket_where_we_replace_it() -> None:
    assert callable(getattr(paho.Client, "_create_socket", None))


async def test_our_socket_is_the_one_that_paho_uses(open_broker: BrokerInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    create = paho.Client._create_socket

    def noted(client: paho.Client) -> Any:
        made.append(client)
        return create(client)

    monkeypatch.setattr(paho.Client, "_create_socket", noted)
    async with connected(settings_for(open_broker)):
        assert len(made) == 1


async def test_what_waited_is_acknowledged_while_we_still_log_in() -> None:
    """The broker gives us what it kept right after CONNACK; here it answers SUBSCRIBE only after our PUBACK."""
    async with scripted([CONNACK, publication(b"kept", mid=7)], [], [SUBACK]) as script:
        bus = MqttBus(settings_for(script, version_5=False), UPLINK)
        async with attached(bus, connected=False):
            taken = await take(bus, 1)
            assert bus.link == 0
            bus.ack(taken)
            await until(lambda: bus.link > 0)
        assert script.heard[0][2] == b"\x40\x00\x07"


async def test_the_broker_holds_what_is_beyond_our_hands(open_broker: BrokerInfo) -> None:
    settings = settings_for(open_broker, receive_maximum=5)
    async with connected(settings) as bus, device(open_broker) as d1:
        for number in range(40):
            await d1.publish(REPORT, b"%d" % number, qos=1)
        await bus.publish("ota/v1/d/d1/cmd", b"", expiry_s=60)  # by then the broker has sent what it may
        heard = list(await bus.receive(1000, wait=False))
        assert len(heard) == 5
        bus.ack(heard)
        while len(heard) < 40:
            more = await bus.receive(1000)
            bus.ack(more)
            heard += more
    assert [message.payload for message in heard] == [b"%d" % number for number in range(40)]


async def test_a_full_inbox_stops_reading_and_loses_nothing() -> None:
    count, filler = 3000, b"x" * 1000
    flood = [publication(b"%d " % number + filler, mid=0) for number in range(count)]
    async with (
        scripted([CONNACK], [SUBACK, *flood]) as script,
        connected(settings_for(script, version_5=False, receive_maximum=10)) as bus,
    ):
        await until(lambda: bus._link is not None and not bus._link._reading)
        held = list(await bus.receive(count, wait=False))
        assert 20 <= len(held) < 1500  # what one filling of the socket's buffer brings, and no more
        held += await take(bus, count - len(held))
    assert [int(message.payload.split()[0]) for message in held] == list(range(count))


async def test_messages_at_qos_0_need_no_acknowledgement(open_broker: BrokerInfo) -> None:
    async with connected(settings_for(open_broker)) as bus, device(open_broker) as d1:
        await d1.publish(REPORT, b"a", qos=0)
        taken = await take(bus, 1)
        bus.ack(taken)
        await d1.publish(REPORT, b"b", qos=1)
        assert (await take(bus, 1))[0].payload == b"b"
        assert taken[0].receipt & 0xFFFF == 0


async def test_a_message_published_as_retained_is_marked(open_broker: BrokerInfo) -> None:
    async with connected(settings_for(open_broker)) as bus, device(open_broker) as d1:
        await d1.publish(REPORT, b"live", qos=1, retain=True)
        assert [(m.payload, m.retained) for m in await take(bus, 1)] == [(b"live", True)]


async def test_what_the_broker_had_retained_is_not_asked_for_with_mqtt_5(open_broker: BrokerInfo) -> None:
    async with device(open_broker) as d1:
        await d1.publish(REPORT, b"old", qos=1, retain=True)
        async with connected(settings_for(open_broker)) as bus:
            await d1.publish(REPORT, b"new", qos=1)
            assert [m.payload for m in await take(bus, 1)] == [b"new"]


async def test_what_the_broker_had_retained_is_marked_with_mqtt_3(open_broker: BrokerInfo) -> None:
    async with device(open_broker) as d1:
        await d1.publish(REPORT, b"old", qos=1, retain=True)
    async with connected(settings_for(open_broker, version_5=False)) as bus:
        assert [(m.payload, m.retained) for m in await take(bus, 1)] == [(b"old", True)]


async def test_a_command_goes_with_its_expiry_and_is_not_retained(open_broker: BrokerInfo) -> None:
    async with device(open_broker) as d1:
        await d1.subscribe("ota/v1/d/d1/cmd", qos=1)
        async with connected(settings_for(open_broker)) as bus:
            await bus.publish("ota/v1/d/d1/cmd", b"install", expiry_s=3600)
            heard = await anext(d1.messages)
    assert (heard.qos, heard.retain) == (1, False)
    assert getattr(heard.properties, "MessageExpiryInterval", None) == 3600


async def test_a_command_larger_than_the_broker_takes_fails_and_the_bus_comes_back(open_broker: BrokerInfo) -> None:
    async with connected(settings_for(open_broker)) as bus:
        first = bus.link
        with pytest.raises(UnavailableError) as caught:
            await bus.publish("ota/v1/d/d1/cmd", b"x" * 20_000, expiry_s=60)
        assert caught.value.code == "link_broken"
        await until(lambda: bus.link > first)
        await bus.publish("ota/v1/d/d1/cmd", b"x", expiry_s=60)


async def test_a_publication_that_the_broker_refuses_is_an_error() -> None:
    refused = b"\x40\x04\x00\x02\x87\x00"
    async with scripted([CONNACK_5], [SUBACK_5], [refused]) as script, connected(settings_for(script)) as bus:
        with pytest.raises(UnavailableError, match="Not authorized") as caught:
            await bus.publish("ota/v1/d/d1/cmd", b"x", expiry_s=60)
    assert caught.value.code == "publish_refused"


async def test_a_large_message_in_small_pieces_is_one_message() -> None:
    packet = publication(bytes(range(256)) * 6000)
    async with (
        scripted([CONNACK], [SUBACK, packet[:1], packet[1:3], packet[3:50], packet[50:]]) as script,
        connected(settings_for(script, version_5=False)) as bus,
    ):
        (heard,) = await take(bus, 1)
    assert heard.payload == bytes(range(256)) * 6000


async def test_a_topic_that_is_no_text_is_handed_on_as_no_topic() -> None:
    bad = publication(b"x", topic=b"\xff\xfe")
    async with scripted([CONNACK], [SUBACK, bad, publication(b"y", mid=2)]) as script:
        async with connected(settings_for(script, version_5=False)) as bus:
            heard = await take(bus, 2)
            bus.ack(heard)
            assert [(message.topic, message.payload) for message in heard] == [("", b"x"), (REPORT, b"y")]
            await until(lambda: len(script.heard[0]) == 4)
        assert script.heard[0][2:4] == [b"\x40\x00\x01", b"\x40\x00\x02"]


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x32\x03\x00\x05a", id="a topic longer than its packet"),
        pytest.param(b"\x32\x00", id="an empty publication"),
        pytest.param(b"\x00\x00", id="a packet of no kind"),
        pytest.param(b"\x32\xff\xff\xff\xff\x01", id="an endless length"),
        pytest.param(b"\x36\x05\x00\x01a\x00\x01", id="a third QoS"),
    ],
)
@pytest.mark.parametrize("version_5", [True, False])
async def test_garbage_ends_the_link_and_another_is_made(garbage: bytes, version_5: bool) -> None:
    answers = ([CONNACK_5], [SUBACK_5, garbage]) if version_5 else ([CONNACK], [SUBACK, garbage])
    async with (
        scripted(*answers) as script,
        attached(MqttBus(settings_for(script, version_5=version_5), UPLINK), connected=False) as task,
    ):
        await until(lambda: len(script.heard) >= 3)
        assert not task.done()


async def test_a_broker_that_leaves_while_we_log_in_is_not_waited_for() -> None:
    broker = await asyncio.start_server(_greet_and_leave, brokers.HOST, 0)
    port = broker.sockets[0].getsockname()[1]
    settings = settings_for(BrokerInfo(brokers.HOST, port, "mosquitto"), version_5=False, connect_timeout_s=60.0)
    async with broker:
        with capture_logs() as logs:
            async with attached(MqttBus(settings, UPLINK), connected=False):
                await until(lambda: len(logs) >= 2)
    assert {(line["event"], line["code"]) for line in logs} == {("broker.unavailable", "link_broken")}


async def _greet_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(CONNACK)
    writer.close()
    await writer.wait_closed()


async def test_a_broker_that_is_silent_is_given_up(open_broker: BrokerInfo) -> None:
    async with relay(open_broker) as line:
        line.hold()
        with capture_logs() as logs:
            async with attached(MqttBus(settings_for(line, connect_timeout_s=0.05), UPLINK), connected=False):
                await until(lambda: bool(logs))
    assert (logs[0]["event"], logs[0]["code"]) == ("broker.unavailable", "no_answer")


async def test_a_broker_that_stops_and_starts_again_is_found_again(tmp_path: Path) -> None:
    program = brokers.find_mosquitto()
    assert program
    port = free_port()
    with capture_logs() as logs:
        async with brokers.mosquitto(program, users=None, directory=tmp_path, port=port) as broker:
            bus = MqttBus(settings_for(broker), UPLINK)
            running = attached(bus)
            await running.__aenter__()
            async with device(broker) as d1:
                await d1.publish(REPORT, b"a", qos=1)
            await take(bus, 1)
        try:
            await until(lambda: any(line["event"] == "broker.unavailable" for line in logs))
            assert bus.link == 0
            async with brokers.mosquitto(program, users=None, directory=tmp_path, port=port):
                again = await take(bus, 1)
                assert again[0].payload == b"a"
                await until(lambda: bus.link > 0)
        finally:
            await running.__aexit__(None, None, None)
    events = [line["event"] for line in logs]
    assert events[:3] == ["broker.connected", "broker.lost", "broker.unavailable"]
    assert "no_broker" in {line.get("code") for line in logs}
    assert "broker.connected" in events[3:]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of half a second and more are noted instead of waited for."""
    noted: list[float] = []
    real = asyncio.sleep

    async def sleep(delay: float, result: Any = None) -> Any:
        if delay >= 0.5:
            noted.append(delay)
            delay = 0
        return await real(delay, result)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return noted


def nobody() -> BrokerInfo:
    return BrokerInfo(brokers.HOST, free_port(), "mosquitto")


async def test_pauses_double_with_jitter_up_to_the_longest(pauses: list[float]) -> None:
    settings = settings_for(nobody(), reconnect_min_s=1.0, reconnect_max_s=8.0)
    async with attached(MqttBus(settings, UPLINK), connected=False):
        await until(lambda: len(pauses) >= 8)
    full = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    shares = [pause / most for pause, most in zip(pauses, full, strict=False)]
    assert all(0.5 <= share <= 1.0 for share in shares)
    assert len(set(shares)) > 1


async def test_a_link_that_lived_long_resets_the_pause(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "STEADY_S", -1.0)
    settings = settings_for(nobody(), reconnect_min_s=1.0, reconnect_max_s=8.0)
    async with attached(MqttBus(settings, UPLINK), connected=False):
        await until(lambda: len(pauses) >= 4)
    assert max(pauses) <= 1.0


async def test_no_socket_is_left_behind(open_broker: BrokerInfo) -> None:
    async with relay(open_broker) as line, connected(settings_for(line)) as bus:
        for _ in range(3):
            before = bus.link
            line.cut()
            await until(lambda before=before: bus.link > before)  # type: ignore[misc]
        gc.collect()
        ours = [
            item
            for item in gc.get_objects()
            if isinstance(item, socket.socket) and item.fileno() >= 0 and _peer_port(item) == line.port
        ]
        assert len(ours) == 1


def _peer_port(item: socket.socket) -> int:
    try:
        return int(item.getpeername()[1])
    except (OSError, IndexError):
        return 0
