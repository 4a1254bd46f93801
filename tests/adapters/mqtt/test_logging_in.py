"""Why a broker does not let us in: each cause with its own code, and words that say what to mend."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.mqtt import MqttBus, MqttSettings
from orchestrator.demo import broker as brokers
from orchestrator.demo.broker import DAEMON_USER, HOST, BrokerInfo, free_port
from tests.adapters.mqtt.certificates import Authority
from tests.adapters.mqtt.peers import CONNACK, UPLINK, attached, connected, scripted, settings_for, take, until
from tests.support.broker import StartBroker


async def refusal(settings: MqttSettings) -> tuple[str, str]:
    """Return code and text of the first failure to log in."""
    logs: list[MutableMapping[str, Any]]
    with capture_logs() as logs:
        async with attached(MqttBus(settings, UPLINK), connected=False):
            await until(lambda: bool(logs))
    assert (logs[0]["event"], logs[0]["log_level"]) == ("broker.unavailable", "warning")
    return logs[0]["code"], logs[0]["error"]


async def test_no_broker() -> None:
    port = free_port()
    code, text = await refusal(settings_for(BrokerInfo(HOST, port, "mosquitto")))
    assert (code, text) == ("no_broker", f"no broker answers at {HOST}:{port}: [Errno 111] Connection refused")


async def test_an_unknown_host() -> None:
    code, text = await refusal(MqttSettings("no-such-host.invalid", 1883, "x"))
    assert code == "no_broker"
    assert text.startswith("no broker answers at no-such-host.invalid:1883: ")


@pytest.mark.parametrize("version_5", [True, False])
async def test_a_wrong_password(start_broker: StartBroker, version_5: bool) -> None:
    broker = await start_broker(users={DAEMON_USER: "right"})
    settings = settings_for(broker, username=DAEMON_USER, password="wrong", version_5=version_5)
    code, text = await refusal(settings)
    assert code == "broker_refused"
    assert text == (
        f"the broker at {HOST}:{broker.port} refused us: Not authorized; check mqtt.username and the password"
    )


async def test_the_right_password(start_broker: StartBroker) -> None:
    broker = await start_broker(users={DAEMON_USER: "right"})
    async with connected(settings_for(broker, username=DAEMON_USER, password="right")) as bus:
        assert bus.link == 1


@pytest.mark.parametrize(
    ("version_5", "connack", "suback"),
    [
        (True, b"\x20\x03\x00\x00\x00", b"\x90\x05\x00\x01\x00\x01\x87"),
        (False, CONNACK, b"\x90\x04\x00\x01\x01\x80"),
    ],
)
async def test_a_subscription_that_is_refused(version_5: bool, connack: bytes, suback: bytes) -> None:
    async with scripted([connack], [suback]) as script:
        code, text = await refusal(settings_for(script, version_5=version_5))
    assert code == "subscribe_refused"
    assert text == (
        "the broker does not let us subscribe to ota/v1/d/+/report, ota/v1/d/+/hello: allow it in its access rules"
    )


# paho leaves the socket of a handshake that failed to the garbage collector.
leaves_a_socket = pytest.mark.filterwarnings(
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def tls_lines(authority: Authority, *, clients: bool) -> str:
    pair = authority.issue("broker")
    lines = [f"cafile {authority.cert}", f"certfile {pair.cert}", f"keyfile {pair.key}"]
    if clients:
        lines += ["require_certificate true", "use_identity_as_username true"]
    return "\n".join(lines) + "\n"


async def test_an_encrypted_link(start_broker: StartBroker, authority: Authority) -> None:
    broker = await start_broker(conf_extra=tls_lines(authority, clients=False))
    settings = settings_for(broker, tls=True, ca_file=authority.cert)
    tls = aiomqtt.TLSParameters(ca_certs=authority.cert)
    async with connected(settings) as bus, aiomqtt.Client(HOST, broker.port, tls_params=tls) as device:
        payload = bytes(range(256)) * 40
        for _ in range(300):
            await device.publish("ota/v1/d/d1/report", payload, qos=1)
        heard = await take(bus, 300)
        bus.ack(heard)
        assert {message.payload for message in heard} == {payload}
        await bus.publish("ota/v1/d/d1/cmd", payload, expiry_s=60)


@leaves_a_socket
async def test_a_broker_of_another_authority(start_broker: StartBroker, tmp_path: Path, authority: Authority) -> None:
    broker = await start_broker(conf_extra=tls_lines(authority, clients=False))
    other = Authority(tmp_path, "other")
    code, text = await refusal(settings_for(broker, tls=True, ca_file=other.cert))
    assert code == "tls"
    assert text.startswith(f"TLS with the broker at {HOST}:{broker.port} failed: ")
    assert "CERTIFICATE_VERIFY_FAILED" in text


@leaves_a_socket
async def test_a_broker_with_another_name(start_broker: StartBroker, authority: Authority) -> None:
    broker = await start_broker(conf_extra=tls_lines(authority, clients=False))
    code, text = await refusal(settings_for(broker, tls=True, ca_file=authority.cert, host="localhost"))
    assert code == "tls"
    assert "Hostname mismatch" in text


async def test_a_client_certificate_is_our_login(start_broker: StartBroker, authority: Authority) -> None:
    broker = await start_broker(conf_extra=tls_lines(authority, clients=True))
    pair = authority.issue(DAEMON_USER)
    settings = settings_for(broker, tls=True, ca_file=authority.cert, cert_file=pair.cert, key_file=pair.key)
    async with connected(settings) as bus:
        assert bus.link == 1


async def test_a_missing_client_certificate(start_broker: StartBroker, authority: Authority) -> None:
    broker = await start_broker(conf_extra=tls_lines(authority, clients=True))
    code, _ = await refusal(settings_for(broker, tls=True, ca_file=authority.cert))
    assert code in ("tls", "link_broken", "broker_refused")


async def test_tls_files_that_cannot_be_used(tmp_path: Path, open_broker: BrokerInfo) -> None:
    code, text = await refusal(settings_for(open_broker, tls=True, ca_file=str(tmp_path / "none.pem")))
    assert code == "tls_files"
    assert text.startswith("the TLS files of mqtt cannot be used: ")


@leaves_a_socket
async def test_a_plain_broker_where_tls_is_wanted(open_broker: BrokerInfo) -> None:
    code, _ = await refusal(settings_for(open_broker, tls=True))
    assert code in ("tls", "no_broker")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:amqtt")
@pytest.mark.filterwarnings("ignore::ResourceWarning:amqtt")
async def test_the_stand_in_broker_is_enough_for_mqtt_3() -> None:
    async with (
        brokers.amqtt() as broker,
        connected(settings_for(broker, version_5=False)) as bus,
        aiomqtt.Client(broker.host, broker.port) as device,
    ):
        await device.publish("ota/v1/d/d1/report", b"a", qos=1)
        taken = await take(bus, 1)
        bus.ack(taken)
        await bus.publish("ota/v1/d/d1/cmd", b"install", expiry_s=60)
    assert [message.payload for message in taken] == [b"a"]
