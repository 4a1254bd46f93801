from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.systemd import Notifier
from orchestrator.errors import ConfigError


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A bare datagram socket such as systemd holds; each test binds it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.settimeout(5)
        yield opened


def bind_path(receiver: socket.socket, tmp_path: Path) -> str:
    address = str(tmp_path / "notify")
    receiver.bind(address)
    return address


def test_every_message_is_one_datagram(receiver: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": bind_path(receiver, tmp_path)})
    notifier.starting("waits\nREADY=1", 1.5)
    notifier.ready()
    notifier.status("3 rollouts\nREADY=0  now")
    notifier.watchdog()
    notifier.stopping()
    assert [receiver.recv(1024) for _ in range(5)] == [
        b"EXTEND_TIMEOUT_USEC=1500000\nSTATUS=waits READY=1",
        b"READY=1",
        b"STATUS=3 rollouts READY=0 now",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_an_abstract_socket_is_reached(receiver: socket.socket) -> None:
    name = f"ota-test-{os.getpid()}"
    receiver.bind(f"\0{name}")
    Notifier.from_environ({"NOTIFY_SOCKET": f"@{name}"}).ready()
    assert receiver.recv(1024) == b"READY=1"


def test_a_long_status_is_cut(receiver: socket.socket, tmp_path: Path) -> None:
    Notifier.from_environ({"NOTIFY_SOCKET": bind_path(receiver, tmp_path)}).status("x" * 5000)
    assert receiver.recv(8192) == b"STATUS=" + b"x" * 200


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier.from_environ({"WATCHDOG_USEC": "30000000"})
    notifier.ready()
    assert (notifier.address, notifier.watchdog_interval_s) == (None, None)


def test_a_socket_that_is_gone_is_no_harm(tmp_path: Path) -> None:
    Notifier.from_environ({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_a_full_socket_does_not_block(receiver: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": bind_path(receiver, tmp_path)})
    for _ in range(5000):
        notifier.watchdog()
    assert receiver.recv(1024) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("extra", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_interval_is_half_of_what_is_allowed(extra: dict[str, str], interval_s: float | None) -> None:
    assert Notifier.from_environ({"NOTIFY_SOCKET": "/run/x", **extra}).watchdog_interval_s == interval_s


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, "NOTIFY_SOCKET: 'vsock:2:1234' is neither a path nor an abstract socket"),
        ({"NOTIFY_SOCKET": "@"}, "NOTIFY_SOCKET: '@' is neither"),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC: 'soon' is not a number"),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC: '0' is not a number"),
    ],
)
def test_what_systemd_would_not_set_is_refused(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Notifier.from_environ(environ)
