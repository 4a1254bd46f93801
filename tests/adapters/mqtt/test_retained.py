"""What lies retained at a real broker, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.mqtt import MqttBus
from orchestrator.adapters.mqtt.bus import MOST_FOUND
from orchestrator.adapters.mqtt.retained import LOGGED, TRIES, RetainedAudit
from orchestrator.demo import broker
from orchestrator.demo.broker import DAEMON_USER, BrokerInfo
from orchestrator.errors import ConfigError, UnavailableError
from orchestrator.ports import Message
from orchestrator.wire import topics
from tests.adapters.mqtt.peers import attached, relay, settings_for, take, until
from tests.support.broker import StartBroker
from tests.support.clock import running

OURS = (topics.keyset(1), topics.keyset(12), topics.BEAT)
REPORT = "ota/v1/d/d1/report"


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture(params=[True, False], ids=["MQTT 5", "MQTT 3.1.1"])
async def bus(request: pytest.FixtureRequest, open_broker: BrokerInfo) -> AsyncIterator[MqttBus]:
    made = MqttBus(settings_for(open_broker, version_5=request.param), topics.uplink_filters())
    async with attached(made):
        yield made


@pytest.fixture
async def other(open_broker: BrokerInfo) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(open_broker.host, open_broker.port) as client:
        yield client


async def retain(client: aiomqtt.Client, *names: str) -> None:
    for name in names:
        await client.publish(name, b"something", qos=1, retain=True)


async def test_keysets_and_beats_may_lie_there(bus: MqttBus, other: aiomqtt.Client) -> None:
    await retain(other, *OURS)
    audit = RetainedAudit(bus, at_once)
    with capture_logs() as logs:
        assert await audit.look() == []
    assert (logs, audit.counts["retained_foreign"]) == ([], 0)


async def test_everything_else_is_foreign_and_commands_are_cleared(bus: MqttBus, other: aiomqtt.Client) -> None:
    commands = ["ota/v1/d/d1/cmd", "ota/v1/g/all/cmd"]
    rest = ["ota/v1/d/d1/hello", "ota/v1/keys/0", "ota/v1/keys/x", "ota/v1/g/A/beat", "ota/v1/x/y/z/cmd", "ota/v1"]
    await retain(other, *OURS, *commands, *rest, "elsewhere/cmd")
    audit = RetainedAudit(bus, at_once)
    with capture_logs() as logs:
        assert await audit.look() == sorted(commands + rest)
    assert audit.counts == {"retained_foreign": 8, "retained_cleared": 2}
    assert [log["topic"] for log in logs if log["event"] == "retained.foreign"] == sorted(commands + rest)
    assert [log["topic"] for log in logs if log["event"] == "retained.cleared"] == commands
    assert {log["log_level"] for log in logs if log["event"] == "retained.foreign"} == {"error"}
    assert await audit.look() == sorted(rest)


async def test_reports_go_on_arriving_during_a_look(bus: MqttBus, other: aiomqtt.Client) -> None:
    """What devices say is recorded as ever, at most twice; what others say is nobody's business."""
    said = [b"%d" % number for number in range(50)]

    async def talk(_seconds: float) -> None:
        for payload in said:
            await other.publish(REPORT, payload, qos=1)
            await other.publish("ota/v1/d/d1/cmd", payload, qos=1)
        await bus.publish("ota/v1/d/d2/cmd", b"trigger", expiry_s=60)

    assert await RetainedAudit(bus, talk).look() == []
    await other.publish(REPORT, b"last", qos=1)
    heard: list[Message] = []
    while not heard or heard[-1].payload != b"last":
        heard += await take(bus, 1)
    assert {message.topic for message in heard} == {REPORT}
    assert list(dict.fromkeys(message.payload for message in heard)) == [*said, b"last"]
    assert all(message.receipt & 0xFFFF for message in heard), "each at QoS 1, to be acknowledged after the commit"


async def test_a_look_leaves_no_subscription_behind(bus: MqttBus, other: aiomqtt.Client) -> None:
    await RetainedAudit(bus, at_once).look()
    await other.publish("ota/v1/d/d1/cmd", b"not for us", qos=1)
    await other.publish(REPORT, b"for us", qos=1)
    assert [message.payload for message in await take(bus, 1)] == [b"for us"]
    assert await bus.receive(9, wait=False) == []


async def test_very_many_are_counted_up_to_a_bound(bus: MqttBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.adapters.mqtt.bus.MOST_FOUND", 30)
    for number in range(40):
        await bus.publish(f"ota/v1/x/{number}", b"1", expiry_s=60, retain=True)
    with capture_logs() as logs:
        assert len(await RetainedAudit(bus, at_once).look()) == 30 < MOST_FOUND
    assert len(logs) == LOGGED


async def test_each_connection_is_looked_at_once(open_broker: BrokerInfo, other: aiomqtt.Client) -> None:
    await retain(other, "ota/v1/x")
    async with relay(open_broker) as between:
        bus = MqttBus(settings_for(between), topics.uplink_filters())
        audit = RetainedAudit(bus, at_once)
        async with attached(bus), running(audit.run()):
            await until(lambda: audit.counts["retained_foreign"] == 1)
            await at_once(0)
            between.cut()
            await until(lambda: bus.link > 1)
            await until(lambda: audit.counts["retained_foreign"] == 2)


async def test_without_a_connection_nothing_is_examined(open_broker: BrokerInfo) -> None:
    bus = MqttBus(settings_for(open_broker), topics.uplink_filters())
    with pytest.raises(UnavailableError) as caught:
        await RetainedAudit(bus, at_once).look()
    assert caught.value.code == "link_broken"


async def test_a_broker_that_ends_the_connection_over_a_look_is_not_asked_for_ever(
    open_broker: BrokerInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.adapters.mqtt.retained.SETTLE_S", 7.0)
    async with relay(open_broker) as between:
        bus = MqttBus(settings_for(between), topics.uplink_filters())

        async def cut_looks(seconds: float) -> None:
            if seconds == 7.0:
                between.cut()
                await until(lambda: bus.link == 0)
            await asyncio.sleep(0)

        audit = RetainedAudit(bus, cut_looks)
        with capture_logs() as logs:
            async with attached(bus), running(audit.run()):
                await until(lambda: bus.link > TRIES)
                link = bus.link
                for _ in range(50):
                    await asyncio.sleep(0)
                assert bus.link == link
    failed = [log for log in logs if log["event"] == "retained.not_examined"]
    assert [(log["code"], log["tries_left"]) for log in failed] == [("link_broken", left) for left in (2, 1, 0)]


async def test_a_link_that_breaks_during_a_look_is_an_error_of_the_look(open_broker: BrokerInfo) -> None:
    async with relay(open_broker) as between:
        bus = MqttBus(settings_for(between), topics.uplink_filters())
        async with attached(bus):

            async def cut() -> None:
                between.cut()
                await until(lambda: bus.link != 1)

            with pytest.raises(UnavailableError):
                await bus.retained(topics.EVERYTHING, cut)
            await until(lambda: bus.link > 1)
            assert await bus.retained(topics.EVERYTHING, lambda: at_once(0)) == set()


async def test_the_shipped_rights_are_enough(start_broker: StartBroker, tmp_path: Path) -> None:
    """Left by somebody before there were rules; the daemon finds and clears it under the rules."""
    program = broker.find_mosquitto()
    assert program
    async with (
        broker.mosquitto(program, users=None, directory=tmp_path / "kept") as before,
        aiomqtt.Client(before.host, before.port) as client,
    ):
        await retain(client, REPORT, "ota/v1/d/d1/cmd", "ota/v1/g/all/cmd", "ota/v1/x", topics.BEAT)
    info = await start_broker(users={DAEMON_USER: "secret"}, directory=tmp_path / "kept")
    settings = replace(settings_for(info), username=DAEMON_USER, password="secret", client_id=DAEMON_USER)
    async with attached(bus := MqttBus(settings, topics.uplink_filters())):
        audit = RetainedAudit(bus, at_once)
        assert await audit.look() == ["ota/v1/d/d1/cmd", "ota/v1/d/d1/report", "ota/v1/g/all/cmd", "ota/v1/x"]
        assert await audit.look() == ["ota/v1/d/d1/report", "ota/v1/x"]


@pytest.mark.parametrize("topic", ["$share/daemons/ota/v1/d/+/report"])
def test_a_shared_subscription_is_refused(topic: str, open_broker: BrokerInfo) -> None:
    with pytest.raises(ConfigError, match="would lose reports"):
        MqttBus(settings_for(open_broker), [REPORT, topic])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:amqtt")
@pytest.mark.filterwarnings("ignore::ResourceWarning:amqtt")
async def test_the_stand_in_broker_can_be_looked_at() -> None:
    async with (
        broker.amqtt() as info,
        attached(bus := MqttBus(settings_for(info, version_5=False), topics.uplink_filters())),
    ):
        await bus.publish("ota/v1/x", b"foreign", expiry_s=60, retain=True)
        assert await RetainedAudit(bus, at_once).look() == ["ota/v1/x"]


async def test_what_cannot_be_cleared_is_said(
    bus: MqttBus, other: aiomqtt.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_arguments: object, **_options: object) -> None:
        raise UnavailableError("the broker refused a message", code="publish_refused")

    await retain(other, "ota/v1/d/d1/cmd")
    monkeypatch.setattr(bus, "publish", refuse)
    audit = RetainedAudit(bus, at_once)
    with capture_logs() as logs:
        assert await audit.look() == ["ota/v1/d/d1/cmd"]
    assert audit.counts == {"retained_foreign": 1}
    assert [(log["event"], log["code"]) for log in logs[1:]] == [("retained.not_cleared", "publish_refused")]
