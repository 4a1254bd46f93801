from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.sim.credentials import Credential, load


def test_one_device_per_line(tmp_path: Path) -> None:
    path = tmp_path / "devices.jsonl"
    path.write_text('{"device":"d1","model":"sim-a","mqtt_password":"p","token":"t","later":1}\n\n{"device":"d2"}\n')
    assert load(path) == [Credential("d1", "sim-a", "p", "t"), Credential("d2")]


def test_every_faulty_line_is_named_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "devices.jsonl"
    path.write_text('{"device":"d1","token":"hush"}\n{"device":"d1"}\n{"device":"D/2"}\n{"token":7}\nnonsense\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["2", "3", "4", "5"]
    assert "hush" not in caught.value.message


def test_an_empty_or_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "devices.jsonl"
    with pytest.raises(ConfigError, match="cannot be read.*ota device add"):
        load(path)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="no device in it.*ota device add"):
        load(path)
