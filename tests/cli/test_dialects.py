"""`ota device add`, `set` and `import`: what devices speak, and which signatures they enforce."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.house import House, house


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as found:
        yield found


def known(daemon: House, device: str) -> tuple[str, list[str]]:
    view: dict[str, Any] = json.loads(daemon.well("device", "get", device, "-o", "json"))
    return view["dialect"], view["enforces"]


def test_a_dialect_is_said_when_a_device_is_added_or_later(daemon: House, tmp_path: Path) -> None:
    credentials = ["--credentials", str(tmp_path / "credentials")]
    daemon.well("device", "add", "d1", "--model", "m1", *credentials)
    assert known(daemon, "d1") == ("otad", [])
    assert "dialect" not in daemon.well("device", "get", "d1")
    both = ["--enforces", "swupdate", "--enforces", "rauc"]
    daemon.well("device", "add", "d2", "--model", "m1", "--dialect", "ddi", *both, *credentials)
    assert known(daemon, "d2") == ("ddi", ["rauc", "swupdate"])
    assert "  dialect   ddi; enforces rauc swupdate\n" in daemon.well("device", "get", "d2")
    daemon.well("device", "set", "d1", "--dialect", "esp32", "--enforces", "esp32-arduino")
    assert known(daemon, "d1") == ("esp32", ["esp32-arduino"])
    daemon.well("device", "set", "d1", "--enforces", "")
    assert "  dialect   esp32; enforces nothing\n" in daemon.well("device", "get", "d1")


def test_a_file_says_dialects(daemon: House, tmp_path: Path) -> None:
    daemon.well("device", "add", "d1", "d2", "--model", "m1", "--credentials", str(tmp_path / "credentials"))
    table = tmp_path / "a.csv"
    table.write_text("id,dialect,enforces\nd1,ddi,rauc;swupdate\nd2,pico,\n")
    assert daemon.well("device", "import", str(table)) == "2 of 2 devices changed\n"
    assert (known(daemon, "d1"), known(daemon, "d2")) == (("ddi", ["rauc", "swupdate"]), ("pico", []))
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"id": "d1", "enforces": ["pgp"], "dialect": "x"}\n{"id": "d2", "dialect": 3}\n')
    result = daemon.ota("device", "import", str(lines))
    assert result.exit_code == 1
    assert [line.partition(";")[0].removeprefix(f"error: {lines}:") for line in result.stderr.splitlines()] == [
        "1: dialect 'x' is not known",
        "1: 'pgp' is no signature that a device enforces",
        "2: dialect is a text",
    ]


def test_an_unknown_word_is_refused(daemon: House, tmp_path: Path) -> None:
    credentials = ["--credentials", str(tmp_path / "credentials")]
    assert daemon.ota("device", "add", "d1", "--model", "m1", "--dialect", "x", *credentials).exit_code == 2
    result = daemon.ota("device", "add", "d1", "--model", "m1", "--enforces", "pgp", *credentials)
    assert result.exit_code == 1
    assert "'pgp' is no signature that a device enforces" in result.stderr
