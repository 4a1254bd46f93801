"""The journal is told over a real datagram socket, and read back as systemd reads it."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters import journal, logs
from orchestrator.adapters.journal import SOCKET, Journal
from tests.adapters.test_logs import PEM, _restore

__all__ = ["_restore"]
Fields = dict[str, str]


class Ear:
    """What systemd holds: a datagram socket.

    Attributes:
        journal: leads to it.
    """

    def __init__(self, opened: socket.socket, address: Path) -> None:
        opened.bind(str(address))
        opened.settimeout(5)
        self._opened = opened
        self.journal = Journal(address)

    def hear(self) -> Fields:
        """Return the fields of the next event."""
        return parsed(self._opened.recv(1 << 20))


def parsed(datagram: bytes) -> Fields:
    """Return the fields of a datagram, as systemd's documentation of the protocol says."""
    fields: Fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, end, datagram = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert (len(value), end) == (size, b"\n")
        else:
            datagram = rest
        assert name.decode() not in fields, "said twice"
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        yield Ear(opened, tmp_path / "socket")


@pytest.fixture
def stream(ear: Ear) -> io.StringIO:
    """A stream to which all is logged that the journal does not take."""
    stream = io.StringIO()
    logs.configure("debug", "json", stream, ear.journal)
    return stream


def log(event: str = "test.event", level: str = "info", **values: Any) -> None:
    getattr(structlog.get_logger(), level)(event, **values)


def test_an_event_is_found_by_its_fields(ear: Ear, stream: io.StringIO) -> None:
    log("rollout.moved", rollout="spring", stage=2, share=0.5, ok=True, nothing=None, examples=["d1", "d2"])
    fields = ear.hear()
    line = json.loads(fields.pop("MESSAGE"))
    assert (line["event"], line["rollout"], line["level"], line["nothing"]) == ("rollout.moved", "spring", "info", None)
    assert line["timestamp"].endswith("Z")
    assert fields == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "ota",
        "OTA_EVENT": "rollout.moved",
        "OTA_ROLLOUT": "spring",
        "OTA_STAGE": "2",
        "OTA_SHARE": "0.5",
        "OTA_OK": "true",
        "OTA_EXAMPLES": '["d1", "d2"]',
    }
    assert stream.getvalue() == "", "the journal has it, and would have it twice"


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
@pytest.mark.usefixtures("stream")
def test_levels_are_those_of_syslog(ear: Ear, level: str, priority: str) -> None:
    log(level=level)
    logging.getLogger("some.library").log(logging.getLevelNamesMapping()[level.upper()], "said")
    assert [ear.hear()["PRIORITY"] for _ in range(2)] == [priority, priority]


@pytest.mark.usefixtures("stream")
def test_a_level_of_a_librarys_own_is_news(ear: Ear) -> None:
    logging.getLogger("some.library").log(25, "said")
    assert ear.hear()["PRIORITY"] == "6"


def test_libraries_are_heard_too_and_nothing_is_said_of_what_the_journal_took(
    ear: Ear, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("botocore").warning("slow %s", "answer", extra={"attempt": 2})
    fields = ear.hear()
    assert (fields["OTA_EVENT"], fields["OTA_LOGGER"], fields["OTA_ATTEMPT"]) == ("slow answer", "botocore", "2")
    assert (stream.getvalue(), capsys.readouterr().err) == ("", "")


@pytest.mark.usefixtures("stream")
def test_a_traceback_is_one_field_with_its_lines(ear: Ear) -> None:
    try:
        raise RuntimeError("otad_1_topsecret\nPRIORITY=0")
    except RuntimeError:
        structlog.get_logger().exception("task.died")
    fields = ear.hear()
    assert fields["PRIORITY"] == "3"
    assert fields["OTA_EXCEPTION"].startswith("Traceback (most recent call last):\n")
    assert fields["OTA_EXCEPTION"].endswith("RuntimeError: otad_[redacted]\nPRIORITY=0")


@pytest.mark.usefixtures("stream")
def test_no_secret_and_no_hostile_text_enters_a_field(ear: Ear) -> None:
    strange: dict[str, Any] = {"priority": 0, "x=y\nMESSAGE": 1, "é" * 100: 2}
    device = "d1\nOTA_ROLLOUT=other\x1b[2J"
    log(text=f"otad_7_Zm9vYmFy with {PEM}", token="hunter2", device=device, **strange)
    fields = ear.hear()
    assert fields["OTA_TEXT"] == "otad_[redacted] with [redacted]"
    assert fields["OTA_TOKEN"] == "[redacted]"
    assert fields["OTA_DEVICE"] == "d1\\nOTA_ROLLOUT=other\\x1b[2J"
    assert (fields["OTA_PRIORITY"], fields["PRIORITY"], fields["OTA_X_Y_MESSAGE"]) == ("0", "6", "1")
    assert fields["OTA_" + 60 * "_"] == "2"
    assert "OTA_ROLLOUT" not in fields


@given(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none() | st.lists(st.text())), st.text())
def test_whatever_is_said_is_read_back_and_stands_where_it_was_put(event: dict[str, Any], line: str) -> None:
    datagram = journal._datagram(line, event)
    names, at = [], 0
    while at < len(datagram):
        end = datagram.index(b"\n", at)
        name, equals, _ = datagram[at:end].partition(b"=")
        names.append(name.decode())
        at = end + 1 if equals else end + 10 + int.from_bytes(datagram[end + 1 : end + 9], "little")
    assert names[:3] == ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"]
    assert all(name.startswith("OTA_") and len(name) <= 64 and name.isascii() for name in names[3:])
    assert all(character.isupper() or character in "0123456789_" for name in names for character in name)
    told = [value for name, value in event.items() if value is not None and name not in ("level", "timestamp")]
    assert len(names) == 3 + len(told)


# What the journal does not take


def test_without_a_journal_the_stream_gets_the_line(ear: Ear, tmp_path: Path, stream: io.StringIO) -> None:
    ear.journal.address.unlink()
    log("rollout.halted", rollout="spring")
    logging.getLogger("botocore").warning("slow")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["rollout.halted", "slow"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        back = Ear(again, tmp_path / "socket")
        log("rollout.resumed")
        assert back.hear()["OTA_EVENT"] == "rollout.resumed", "it is told again once it is back"


def test_what_is_larger_than_a_datagram_goes_to_the_stream_whole(stream: io.StringIO) -> None:
    log(said=["x" * 2000] * 500)
    assert json.loads(stream.getvalue())["said"] == ["x" * 2000] * 500


def test_a_busy_journal_is_not_waited_for_and_no_line_is_lost(ear: Ear, stream: io.StringIO) -> None:
    began = time.monotonic()
    for number in range(3000):
        log(number=number)
    assert time.monotonic() - began < 30
    written = [json.loads(line)["number"] for line in stream.getvalue().splitlines()]
    heard = [int(ear.hear()["OTA_NUMBER"]) for _ in range(3000 - len(written))]
    assert written, "its queue is full by then"
    assert sorted(heard + written) == list(range(3000))


# When it is told


def test_it_is_told_where_systemd_says_that_the_stream_leads_there() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as stream:
        found = os.fstat(writer)
        tied = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert Journal.behind(stream, tied) == Journal(SOCKET)
        assert Journal.behind(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}) is None
        assert Journal.behind(stream, {"JOURNAL_STREAM": "mumble"}) is None
        assert Journal.behind(stream, {}) is None
        assert Journal.behind(io.StringIO(), tied) is None
