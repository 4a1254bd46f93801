"""The fourteen probes on real mosquittos: as shipped all of them hold, and each can fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.demo.broker import HOST, free_port
from orchestrator.doctor import dynsec
from orchestrator.doctor.examine import Finding, examine
from orchestrator.doctor.party import Address, Heard, Login, Party
from orchestrator.doctor.probes import LIMIT, NEGATIVE, POSITIVE, Probe, Scene, Seen
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.wire import topics
from orchestrator.wire.topics import Channel
from tests.doctor.brokers import STRANGER, Place, running
from tests.doctor.conftest import StartPlace

# paho leaves the socket of a handshake that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning",
)
ALL = (POSITIVE, *NEGATIVE, LIMIT)
OPEN = {
    "publish_other": "a device wrote to ota/v1/d/dev-b/hello, ota/v1/d/dev-b/report, ota/v1/d/dev-b/state",
    "forge_command": "a device wrote to ota/v1/d/dev-a/cmd, ota/v1/d/dev-b/cmd",
    "forge_group": "a device wrote to ota/v1/events/ota-doctor, ota/v1/g/all/beat, ota/v1/g/all/cmd, ota/v1/keys/1",
    "overhear_other": "a device heard ota/v1/d/dev-b/cmd, ota/v1/d/dev-b/report",
    "overhear_all": "a device heard ota/v1/d/dev-b/cmd, ota/v1/d/dev-b/report",
    "overhear_events": "a device heard what is for operators",
    "join_share": "a device heard 10 of 20 reports through a shared subscription",
    "foreign_will": "a device wrote to ota/v1/d/dev-b/state",
    "clear_beat": "a device cleared a retained message of the daemon",
    "anonymous": "a client without a login heard a command",
}


@pytest.fixture(params=["acl", "dynsec"])
def access(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["passwords", "certificates"])
def shipped(brokers: StartPlace, access: str, request: pytest.FixtureRequest) -> Place:
    return brokers(access, request.param)


@pytest.fixture
def scene(shipped: Place) -> Iterator[Scene]:
    made = Scene(shipped.address, *(shipped[name] for name in (dynsec.WITNESS, "dev-a", "dev-b")))
    yield made
    made.close()


@pytest.mark.parametrize("probe", ALL, ids=[probe.name for probe in ALL])
def test_the_shipped_files_hold(scene: Scene, probe: Probe) -> None:
    assert probe.run(scene).fault == ""


def test_there_are_fifteen_things_that_no_device_may_do() -> None:
    assert len(NEGATIVE) == len({probe.name for probe in NEGATIVE}) == 15


def test_an_access_file_is_no_place_for_shared_subscriptions(scene: Scene, access: str) -> None:
    """It judges what is delivered: a device joins, and the broker deals it reports that it then drops."""
    (probe,) = [probe for probe in NEGATIVE if probe.name == "join_share"]
    expected = "a shared subscription would lose 10 of 20 reports here: use none" if access == "acl" else ""
    assert probe.run(scene).note == expected


def test_the_daemon_has_its_rights(shipped: Place) -> None:
    with shipped.enter(dynsec.DAEMON) as daemon, shipped.enter("dev-a") as device:
        device.subscribe(topics.command("dev-a"))
        device.subscribe(topics.KEYSETS)
        device.subscribe(topics.BEAT)
        for topic in (*topics.uplink_filters(), topics.EVERYTHING):
            assert daemon.subscribe(topic)
        for topic in (topics.command("dev-a"), topics.keyset(7), topics.BEAT):
            assert daemon.say(topic, topic.encode())
            assert device.hears(topic.encode())
        for channel in Channel:
            assert device.say(topics.uplink("dev-a", channel), channel.encode())
            assert daemon.hears(channel.encode())


def test_who_listens_to_events_hears_them_and_nothing_else(shipped: Place) -> None:
    event, command = topics.event("rollout.halted"), topics.command("dev-a")
    with shipped.enter(dynsec.DAEMON) as daemon, shipped.enter(dynsec.LISTENER) as listener:
        assert listener.subscribe(topics.EVENTS)
        listener.subscribe(topics.EVERYTHING)
        daemon.subscribe(topics.EVERYTHING)
        assert daemon.say(command, b"a command")
        listener.say(event, b"forged")
        listener.say(command, b"forged")
        assert daemon.say(event, b"an event")
        assert listener.hears(b"an event")
        assert daemon.hears(b"an event")
        assert {item.payload for item in listener.heard} == {b"an event"}
        assert b"forged" not in {item.payload for item in daemon.heard}


def test_whoever_is_not_on_the_list_has_no_rights(shipped: Place, access: str) -> None:
    stranger = shipped[STRANGER]
    if stranger.password is not None:
        with pytest.raises(UnavailableError, match="Not authorized"):
            Party(shipped.address, stranger)
        return
    with shipped.enter(dynsec.WITNESS) as witness, shipped.enter(STRANGER) as party, shipped.enter("dev-a") as device:
        witness.subscribe(topics.EVERYTHING)
        party.say(topics.uplink(STRANGER, Channel.REPORT), b"of a stranger")
        device.say(topics.uplink("dev-a", Channel.REPORT), b"of a device")
        assert witness.hears(b"of a device")
        # With an access file whoever the authority certified is a device.
        assert any(item.payload == b"of a stranger" for item in witness.heard) is (access == "acl")
        assert party.subscribe(topics.command(STRANGER)) is (access == "acl")


def found(place: Place, *names: str) -> dict[str, Finding]:
    names = names or (dynsec.WITNESS, "dev-a", "dev-b")
    return {item.name: item for item in examine(place.address, *(place[name] for name in names))}


def test_a_broker_without_rules_fails(brokers: StartPlace) -> None:
    findings = found(brokers("none", "passwords"))
    assert list(findings) == [probe.name for probe in ALL]
    faults = {name: item.fault for name, item in findings.items() if not item.passed}
    assert faults.pop("read_system").endswith(" messages such as $SYS/broker/version")
    assert faults == OPEN
    assert all(item.remedy for item in findings.values() if not item.passed)
    assert all(not item.remedy for item in findings.values() if item.passed)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """mosquitto with its own limits, and client identifiers that anybody may choose."""
    port = free_port()
    with running(f"allow_anonymous true\nlistener {port} {HOST}\n", tmp_path_factory.mktemp("stock"), port):
        yield Address(HOST, port)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("oversize", "a message of 65536 bytes was passed on"),
        ("take_session", "a device took over another's session, and the trigger that waited there is lost"),
        ("queue", "1000 of 2000 reports were lost while the subscriber was away"),
        ("anonymous", "a client without a login heard a command"),
    ],
)
def test_the_limits_of_the_distribution_fail(stock: Address, name: str, fault: str) -> None:
    (probe,) = [probe for probe in ALL if probe.name == name]
    scene = Scene(stock, Login(dynsec.WITNESS), Login("dev-a"), Login("dev-b"))
    try:
        assert probe.run(scene).fault == fault
    finally:
        scene.close()


def test_a_limit_that_no_report_fits_in_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.doctor.party.PATIENCE_S", 0.3)
    port = free_port()
    with running(f"allow_anonymous true\nmax_packet_size 1500\nlistener {port} {HOST}\n", tmp_path, port):
        address = Address(HOST, port)
        findings = {item.name: item for item in examine(address, Login("w"), Login("dev-a"), Login("dev-b"))}
    assert findings["oversize"].fault == "a report of 2048 bytes did not arrive"


def test_a_device_that_may_ask_the_plugin_fails(brokers: StartPlace) -> None:
    findings = found(brokers("loose", "passwords"))
    assert {name for name, item in findings.items() if not item.passed} == {"control"}
    assert findings["control"].fault.endswith(" messages such as $CONTROL/dynamic-security/v1/response")


def test_a_broker_that_does_not_mark_what_it_replays_fails(
    brokers: StartPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doctor.party.Heard", lambda topic, payload, _: Heard(topic, payload, False))
    finding = found(brokers("dynsec", "passwords"))["stale_report"]
    assert (finding.passed, finding.fault) == (False, "a retained report is replayed as if it were new")


def test_a_device_that_nobody_hears_proves_nothing(brokers: StartPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.doctor.party.PATIENCE_S", 0.3)
    place = brokers("dynsec", "passwords")
    names = (dynsec.WITNESS, dynsec.DAEMON, "dev-b")  # the daemon may not speak as a device
    assert [item.fault for item in found(place, *names).values()] == ["what a device said as report did not arrive"]
    monkeypatch.setattr("orchestrator.doctor.examine.POSITIVE", Probe("fine", "", "", lambda _: Seen()))
    findings = found(place, *names)
    assert findings["forge_command"].fault == "not proven: a device's own report did not arrive"
    assert not findings["queue"].passed


def test_a_witness_that_was_thrown_out_comes_back(stock: Address) -> None:
    findings = {item.name: item for item in examine(stock, Login(dynsec.WITNESS), Login("dev-a"), Login("dev-b"))}
    assert not findings["take_session"].passed
    assert not any("not proven" in item.fault for item in findings.values())


def test_three_logins_are_needed(brokers: StartPlace) -> None:
    with pytest.raises(RequestError) as caught:
        found(brokers("dynsec", "passwords"), dynsec.WITNESS, "dev-a", "dev-a")
    assert caught.value.code == "same_login"


def test_the_witness_must_be_allowed_to_hear(brokers: StartPlace) -> None:
    with pytest.raises(UnavailableError) as caught:
        found(brokers("dynsec", "passwords"), "dev-a", "dev-b", dynsec.DAEMON)
    assert caught.value.code == "subscribe_refused"


def test_what_keeps_a_party_out_is_said() -> None:
    port = free_port()
    with pytest.raises(UnavailableError, match=f"no broker answers at {HOST}:{port}") as caught:
        Party(Address(HOST, port), None)
    assert caught.value.code == "no_broker"
    with pytest.raises(UnavailableError) as caught:
        Party(Address(HOST, port, tls=True, ca_file="/nowhere/ca.pem"), None)
    assert caught.value.code == "tls_files"


def test_a_login_does_not_show_its_password() -> None:
    assert "secret" not in repr(Login("dev-a", "secret"))
