"""The looks of the doctor one by one: clocks, files, and the entrance of the broker."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.demo.broker import BrokerInfo
from orchestrator.doctor import clocks, entrance, files
from orchestrator.doctor.entrance import Session
from orchestrator.doctor.party import Address, Login, Party
from orchestrator.doctor.results import Level, worst
from orchestrator.errors import UnavailableError
from tests.doctor.conftest import StartPlace
from tests.support.bucket import Answer, scripted


@pytest.mark.parametrize(
    ("skew_s", "level"),
    [(0, Level.OK), (-4, Level.OK), (6, Level.WARNING), (-299, Level.WARNING), (301, Level.FAULT)],
)
def test_our_clock_beside_that_of_a_server(skew_s: float, level: Level) -> None:
    with scripted(lambda _: Answer(403)) as server:  # it says what time it is
        assert clocks.beside("clock.s3", server.endpoint, lambda: time.time() + skew_s).level is level


def test_a_server_that_says_no_time_is_no_proof() -> None:
    assert clocks.beside("clock.s3", "http://127.0.0.1:1").level is Level.UNKNOWN


def refused() -> int:
    raise OSError("no such call")


def test_the_word_of_the_kernel() -> None:
    assert clocks.synchronised(lambda: 0).level is Level.OK
    assert clocks.synchronised(lambda: clocks.TIME_ERROR).level is Level.WARNING
    assert clocks.synchronised(refused).level is Level.UNKNOWN
    assert clocks.kernel_state() in range(6)


@pytest.mark.parametrize(
    ("mode", "level"),
    [(0o600, Level.OK), (0o400, Level.OK), (0o640, Level.WARNING), (0o660, Level.FAULT), (0o604, Level.FAULT)],
)
def test_who_can_read_a_secret(tmp_path: Path, mode: int, level: Level) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    assert files.secret_file("x", path).level is level


def test_a_folder_that_others_write_to_lets_them_replace_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    path = folder / "key"
    path.touch(mode=0o600)
    folder.chmod(0o777)
    assert files.secret_file("x", path).level is Level.FAULT
    assert files.public_file("x", path).level is Level.FAULT
    folder.chmod(0o1777)  # as /tmp: only the owner of a file can replace it there
    assert files.secret_file("x", path).level is Level.OK
    assert files.secret_file("x", tmp_path / "none").level is Level.UNKNOWN
    assert files.public_file("x", tmp_path / "none").level is Level.UNKNOWN


@pytest.mark.parametrize(
    ("free", "need", "level"),
    [(2 << 30, 0, Level.OK), (2 << 30, 3 << 30, Level.WARNING), (1 << 29, 0, Level.WARNING), (1 << 20, 0, Level.FAULT)],
)
def test_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, need: int, level: Level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert files.room("x", tmp_path, need).level is level


def test_room_nowhere(tmp_path: Path) -> None:
    assert files.room("x", tmp_path / "none", 0).level is Level.UNKNOWN
    assert worst([]) is Level.OK


@pytest.mark.parametrize("version_5", [True, False])
def test_what_waits_in_the_session_of_the_daemon_waits_on(open_broker: BrokerInfo, version_5: bool) -> None:
    """Nothing that devices reported is lost or taken by a look."""
    address, name = Address("127.0.0.1", open_broker.port), "ota-orchestrator"
    with Party(address, Login(name, None), session_s=600) as daemon:
        assert daemon.subscribe("ota/v1/#")
    reports = {b"first", b"second", b"third"}
    with Party(address, Login("dev-1", None)) as device:
        assert device.say("ota/v1/d/dev-1/report", *sorted(reports))
    for _ in range(2):
        entrance.come_in(address, Session(name, 600, version_5))
    with Party(address, Login(name, None), session_s=600, resume=True) as daemon:
        assert daemon.hears_all(reports)


def test_a_broker_that_refuses_and_one_that_is_not_there(brokers: StartPlace) -> None:
    place = brokers("acl", "passwords")
    login = place["ota-orchestrator"]
    entrance.reach(place.address, Session(login.name, 0))
    entrance.come_in(place.address, Session(login.name, 0, username=login.name, password=login.password))
    with pytest.raises(UnavailableError, match="refused us"):
        entrance.come_in(place.address, Session(login.name, 0, username=login.name, password="wrong"))
    untrusted = Address(place.address.host, place.address.port, tls=True)
    with pytest.raises(UnavailableError, match="TLS with .* failed: unable to get local issuer"):
        entrance.reach(untrusted, Session(login.name, 0))
    nowhere = Address("127.0.0.1", 1)
    for knock in (entrance.reach, entrance.come_in):
        with pytest.raises(UnavailableError, match="nobody answers at 127.0.0.1:1"):
            knock(nowhere, Session("x", 0))
    bad = Session("x", 0, cert_file="/nowhere.pem", key_file="/nowhere.key")
    with pytest.raises(UnavailableError, match="TLS files"):
        entrance.reach(place.address, bad)
