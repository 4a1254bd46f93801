"""The files of `deploy/` do what they say, on the programs they are meant for."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiomqtt import Client, Message, MqttError, ProtocolVersion, Will
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from orchestrator.config import Settings
from orchestrator.demo.broker import DAEMON_USER, SHIPPED, BrokerInfo, find_mosquitto, free_port, mosquitto, render
from orchestrator.wire.topics import BEAT, Channel, command, uplink, uplink_filters
from tests.support.broker import StartBroker

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "ota-orchestrator.service"
USERS = {DAEMON_USER: "d-secret", "dev-a": "a-secret", "dev-b": "b-secret"}

HARDENED = {
    "Type": "notify",
    "NotifyAccess": "main",
    "Restart": "always",
    "DynamicUser": "yes",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateUsers": "yes",
    "PrivateIPC": "yes",
    "PrivateMounts": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RemoveIPC": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "DevicePolicy": "closed",
    "KeyringMode": "private",
    "LimitCORE": "0",
}


def assignments(section: str) -> list[tuple[str, str]]:
    """The directives of one section; systemd repeats names, so this is a list."""
    found, inside = [], False
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            inside = line == f"[{section}]"
        elif inside and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.append((name, value))
    return found


def connect(info: BrokerInfo, user: str, **options: Any) -> Client:
    login: dict[str, Any] = {"username": user, "password": USERS[user], "protocol": ProtocolVersion.V5}
    return Client(info.host, info.port, **(login | options))


def test_the_unit_is_hardened() -> None:
    service = assignments("Service")
    assert HARDENED.items() <= dict(service).items()
    assert [value for name, value in service if name == "SystemCallFilter"] == [
        "@system-service",
        "~@privileged @resources",
    ]


def test_the_unit_hands_over_the_credentials_that_the_daemon_looks_for() -> None:
    lines = UNIT.read_text().splitlines()
    loaded = [line.lstrip("#").partition("=")[2].partition(":")[0] for line in lines if "LoadCredential=" in line[:17]]
    assert sorted(loaded) == sorted(Settings.CREDENTIALS.values())


def test_the_pages_name_every_credential_and_every_file() -> None:
    operate, read = ((DEPLOY.parent / path).read_text() for path in ("docs/operate.md", "deploy/README.md"))
    for (section, key), name in Settings.CREDENTIALS.items():
        assert f"| `{section}.{key}`" in operate
        assert f"| `{name}` |" in operate
    files = {path.name for path in DEPLOY.rglob("*") if path.is_file()}
    assert {name for name in files if name not in read} == {"README.md", "ota-alerts-test.yml"}


def test_the_unit_keeps_the_state_where_the_configuration_puts_it() -> None:
    assert Settings().store.path.parent == Path("/var/lib") / dict(assignments("Service"))["StateDirectory"]


def test_systemd_accepts_the_unit_and_finds_it_tight(tmp_path: Path) -> None:
    """systemd's own judgement where it is installed; the directives themselves are tested above everywhere."""
    analyze = shutil.which("systemd-analyze")
    unit = tmp_path / UNIT.name
    shipped = UNIT.read_text().replace("/opt/ota-orchestrator/bin/ota", "/bin/true")
    shared = shipped.replace("PrivateUsers=yes\n", "").replace("#PrivateUsers=no", "PrivateUsers=no")
    for text in (shipped, shared):
        unit.write_text(text)
        for arguments in (["verify"], ["security", "--offline=true", "--threshold=12"]) if analyze else ():
            done = subprocess.run([str(analyze), *arguments, str(unit)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Unknown" not in done.stderr


CONFINED = """
import asyncio, ctypes, socket, sys
from pathlib import Path

folder = Path(sys.argv[1])
refused = ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, from Linux 6.3 on

import uvloop
import orchestrator.daemon
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator.adapters.s3 import S3Settings, S3Source
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.store import open_store

async def live():
    store = open_store(f"sqlite:///{folder / 'state.db'}")
    S3Source(S3Settings("http://127.0.0.1:1", "us-east-1", "id", "secret", "path", 1.0, 1)).close()
    FileSigner(ec.generate_private_key(ec.SECP256R1())).sign(b"trigger")
    assert await store.read(lambda tx: tx.fleet_size()) == 0
    await store.close()
    server = await asyncio.start_unix_server(lambda *_: None, folder / "admin.sock")
    server.close()

uvloop.run(live())
print("refused" if refused else "confined")
"""


def test_the_libraries_live_without_memory_that_is_both_written_and_executed(tmp_path: Path) -> None:
    """`MemoryDenyWriteExecute=` by the kernel's own switch; where it has none, they run unconfined."""
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.returncode) in ((["confined"], 0), (["refused"], 0)), done.stderr


def test_account_and_folders_are_those_of_the_unit() -> None:
    service = dict(assignments("Service"))
    (account,) = _entries("sysusers.d")
    assert account[:2] == ["u", service["User"]]
    folders = {entry[1]: entry[2:5] for entry in _entries("tmpfiles.d")}
    assert folders["/etc/ota-orchestrator/secrets"] == ["0700", "root", "root"]
    assert folders["/etc/ota-orchestrator"] == ["0755", "root", "root"]


def _entries(folder: str) -> list[list[str]]:
    text = (DEPLOY / folder / "ota-orchestrator.conf").read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture
async def guarded(start_broker: StartBroker) -> BrokerInfo:
    """mosquitto on the shipped limits and access rules, with the daemon and two devices."""
    return await start_broker(users=USERS)


async def said(client: Client) -> tuple[str, object]:
    message = await anext(client.messages)
    return str(message.topic), message.payload


async def test_the_daemon_hears_and_commands_every_device(guarded: BrokerInfo) -> None:
    async with connect(guarded, DAEMON_USER) as daemon, connect(guarded, "dev-a") as device:
        for topic in uplink_filters():
            await daemon.subscribe(topic, qos=1)
        await device.subscribe(command("dev-a"), qos=1)
        await daemon.publish(command("dev-a"), b"trigger", qos=1)
        assert await said(device) == (command("dev-a"), b"trigger")
        for channel in Channel:
            await device.publish(uplink("dev-a", channel), b"1", qos=1)
            assert await said(daemon) == (uplink("dev-a", channel), b"1")


async def test_a_device_speaks_for_itself_alone(guarded: BrokerInfo) -> None:
    async with connect(guarded, DAEMON_USER) as daemon, connect(guarded, "dev-a") as device:
        for topic in uplink_filters():
            await daemon.subscribe(topic, qos=1)
        for channel in Channel:
            await device.publish(uplink("dev-b", channel), b"forged", qos=1)
        await device.publish(uplink("dev-a", Channel.REPORT), b"own", qos=1)
        assert await said(daemon) == (uplink("dev-a", Channel.REPORT), b"own")


async def test_no_device_commands(guarded: BrokerInfo) -> None:
    async with connect(guarded, "dev-b") as victim, connect(guarded, "dev-a") as device:
        await victim.subscribe(command("dev-b"), qos=1)
        await device.publish(command("dev-b"), b"forged", qos=1)
        await victim.publish(command("dev-b"), b"forged by itself", qos=1)
        async with connect(guarded, DAEMON_USER) as daemon:
            await daemon.publish(command("dev-b"), b"true", qos=1)
        assert await said(victim) == (command("dev-b"), b"true")


@pytest.mark.parametrize(
    "topic", [command("dev-b"), "ota/v1/d/+/cmd", "ota/v1/d/+/report", "#", "$share/x/ota/v1/d/+/cmd"]
)
async def test_no_device_overhears(guarded: BrokerInfo, topic: str) -> None:
    async with (
        connect(guarded, DAEMON_USER) as daemon,
        connect(guarded, "dev-a") as device,
        connect(guarded, "dev-b") as other,
    ):
        await device.subscribe(topic, qos=1)
        await device.subscribe(command("dev-a"), qos=1)
        await other.publish(uplink("dev-b", Channel.REPORT), b"report of b", qos=1)
        await daemon.publish(command("dev-b"), b"for b", qos=1)
        await daemon.publish(command("dev-a"), b"for a", qos=1)
        assert await said(device) == (command("dev-a"), b"for a")


async def test_the_last_will_of_a_device_is_its_own(guarded: BrokerInfo) -> None:
    async with connect(guarded, DAEMON_USER) as daemon:
        await daemon.subscribe("ota/v1/d/+/state", qos=1)
        for device, topic in (("dev-a", "ota/v1/d/dev-b/state"), ("dev-b", "ota/v1/d/dev-b/state")):
            will = Will(topic, device.encode(), qos=1)
            with suppress(MqttError):
                async with connect(guarded, device, will=will) as client:
                    # MQTT 5 reason 4: go, but publish the will.
                    client._client.disconnect(reasoncode=ReasonCode(PacketTypes.DISCONNECT, identifier=4))
        assert await said(daemon) == ("ota/v1/d/dev-b/state", b"dev-b")


async def test_nobody_takes_over_a_session_by_its_client_id(guarded: BrokerInfo) -> None:
    async with connect(guarded, "dev-a", identifier="dev-a") as device:
        await device.subscribe(command("dev-a"), qos=1)
        async with connect(guarded, "dev-b", identifier="dev-a"), connect(guarded, DAEMON_USER) as daemon:
            await daemon.publish(command("dev-a"), b"still here", qos=1)
            assert await said(device) == (command("dev-a"), b"still here")


@pytest.mark.parametrize("login", [{"username": None, "password": None}, {"password": None}, {"password": "wrong"}])
async def test_nobody_comes_in_without_the_password(guarded: BrokerInfo, login: dict[str, str | None]) -> None:
    with pytest.raises(MqttError, match="[Nn]ot authori[sz]ed"):
        async with connect(guarded, "dev-a", **login):
            pass


async def test_reports_wait_for_a_daemon_that_is_away(guarded: BrokerInfo) -> None:
    """The stock limit of 1000 queued messages would lose the rest after they were acknowledged."""
    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    session.SessionExpiryInterval = 3600
    options: dict[str, Any] = {"clean_start": False, "properties": session}
    async with connect(guarded, DAEMON_USER, **options) as daemon:
        await daemon.subscribe("ota/v1/d/+/report", qos=1)
    async with connect(guarded, "dev-a", max_concurrent_outgoing_calls=100) as device:
        for start in range(0, 3000, 100):
            topic = uplink("dev-a", Channel.REPORT)
            await asyncio.gather(*(device.publish(topic, str(n), qos=1) for n in range(start, start + 100)))
    async with connect(guarded, DAEMON_USER, **options) as daemon:
        heard = {(await said(daemon))[1] for _ in range(3000)}
    assert heard == {str(n).encode() for n in range(3000)}


async def test_an_oversize_message_ends_the_connection(guarded: BrokerInfo) -> None:
    async with connect(guarded, DAEMON_USER) as daemon:
        await daemon.subscribe("ota/v1/d/+/report", qos=1)
        with pytest.raises(MqttError):
            async with connect(guarded, "dev-a", protocol=ProtocolVersion.V311) as device:
                await device.publish(uplink("dev-a", Channel.REPORT), b"x" * 20_000)
                await anext(device.messages)
        async with connect(guarded, "dev-b") as device:
            await device.publish(uplink("dev-b", Channel.REPORT), b"x" * 2048, qos=1)
        assert await said(daemon) == (uplink("dev-b", Channel.REPORT), b"x" * 2048)


async def test_devices_come_in_encrypted(start_broker: StartBroker, tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    changes = {"listener": f"{(port := free_port())} 127.0.0.1", "certfile": str(certificate), "keyfile": str(key)}
    info = await start_broker(users=USERS, conf_extra=render((SHIPPED / "ota-tls.conf").read_text(), changes))
    encrypted = replace(info, port=port)
    async with (
        connect(info, DAEMON_USER) as daemon,
        connect(encrypted, "dev-a", tls_context=ssl.create_default_context(cafile=str(certificate))) as device,
    ):
        await daemon.subscribe("ota/v1/d/+/report", qos=1)
        await device.publish(uplink("dev-b", Channel.REPORT), b"forged", qos=1)
        await device.publish(uplink("dev-a", Channel.REPORT), b"1", qos=1)
        assert await said(daemon) == (uplink("dev-a", Channel.REPORT), b"1")


@pytest.fixture
async def bridged(start_broker: StartBroker, tmp_path: Path) -> tuple[BrokerInfo, BrokerInfo]:
    """An old and a new broker on the shipped configurations; at the old one the bridge has a login, encrypted."""
    certificate, key = _self_signed(tmp_path)
    tls = {"listener": f"{(port := free_port())} 127.0.0.1", "certfile": str(certificate), "keyfile": str(key)}
    old = await start_broker(
        users=USERS | {"ota-bridge": "b-secret"}, conf_extra=render((SHIPPED / "ota-tls.conf").read_text(), tls)
    )
    changes = {"address": f"127.0.0.1:{port}", "bridge_cafile": str(certificate), "remote_password": "b-secret"}
    new = await start_broker(users=USERS, conf_extra=render((SHIPPED / "ota-bridge.conf").read_text(), changes))
    return old, new


async def hears_beat(broker: BrokerInfo) -> Message:
    """Wait until a beat lies at a broker: if it was said at the other one, the bridge stands."""
    async with connect(broker, "dev-b") as device:
        await device.subscribe(BEAT, qos=1)
        return await anext(device.messages)


@pytest.mark.parametrize("daemon_at", ["old", "new"])
async def test_the_bridge_carries_everything_both_ways_once(
    bridged: tuple[BrokerInfo, BrokerInfo], daemon_at: str
) -> None:
    here, there = bridged if daemon_at == "old" else bridged[::-1]
    expiring = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    expiring.MessageExpiryInterval = 600
    async with (
        connect(here, DAEMON_USER) as daemon,
        connect(there, "dev-a") as moved,
        connect(here, "dev-b") as left,
    ):
        await daemon.publish(BEAT, b"beat", qos=1, retain=True, properties=expiring)
        await hears_beat(there)
        await moved.subscribe(command("dev-a"), qos=1)
        for topic in uplink_filters():
            await daemon.subscribe(topic, qos=1)
        for channel in Channel:
            await moved.publish(uplink("dev-a", channel), b"1", qos=1)
            assert await said(daemon) == (uplink("dev-a", channel), b"1")
        await daemon.publish(command("dev-a"), b"trigger", qos=1, properties=expiring)
        message = await anext(moved.messages)
        assert message.payload == b"trigger"
        assert 0 < vars(message.properties)["MessageExpiryInterval"] <= 600
        await left.publish(uplink("dev-b", Channel.REPORT), b"2", qos=1)
        assert await said(daemon) == (uplink("dev-b", Channel.REPORT), b"2")  # nothing had come twice before
    message = await hears_beat(there)
    assert (message.payload, message.retain) == (b"beat", True)


async def test_the_bridge_loses_nothing_while_the_other_broker_is_away(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    users = USERS | {"ota-bridge": "b-secret"}
    program = find_mosquitto()
    assert program
    folder, port = tmp_path / "old", free_port()
    changes = {"address": f"127.0.0.1:{port}", "bridge_cafile": None, "remote_password": "b-secret"}
    async with mosquitto(program, users=users, directory=folder, port=port) as old:
        new = await start_broker(users=USERS, conf_extra=render((SHIPPED / "ota-bridge.conf").read_text(), changes))
        session: dict[str, Any] = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}  # type: ignore[no-untyped-call]
        session["properties"].SessionExpiryInterval = 3600
        async with connect(old, DAEMON_USER, **session) as daemon:
            await daemon.subscribe(uplink("+", Channel.REPORT), qos=1)
            await daemon.publish(BEAT, b"beat", qos=1, retain=True)
            await hears_beat(new)
    async with connect(new, "dev-a") as device:
        for number in range(50):
            await device.publish(uplink("dev-a", Channel.REPORT), str(number), qos=1)
    async with (
        mosquitto(program, users=users, directory=folder, port=port) as old,
        connect(old, DAEMON_USER, **session) as daemon,
    ):
        heard = [(await said(daemon))[1] for _ in range(50)]
    assert heard == [str(number).encode() for number in range(50)]


async def test_a_device_cannot_be_the_bridge(bridged: tuple[BrokerInfo, BrokerInfo]) -> None:
    old, new = bridged
    for broker in (old, new):
        with pytest.raises(MqttError, match="[Nn]ot authori[sz]ed"):
            async with connect(broker, "dev-a", username="ota-bridge", password=USERS["dev-a"]):
                pass


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "broker.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "broker.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "broker.pem", folder / "broker.key"
