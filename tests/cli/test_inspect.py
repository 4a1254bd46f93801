"""`ota artifact inspect`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator.cli.inventory import artifact_group
from orchestrator.errors import NotFoundError, PayloadError, RequestError
from tests.images import forge

TABLE = "nvs, data, nvs, 0x9000, 0x5000\notadata, data, ota, 0xe000, 8K\na, app, ota_0, , {0}\nb, app, ota_1, , {0}\n"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("fw.bin").write_bytes(forge.esp32(secure=3))
    Path("table.csv").write_text(TABLE.format("64K"))
    return tmp_path


def inspect(*words: str, file: str = "fw.bin") -> Result:
    return CliRunner().invoke(artifact_group, ["inspect", file, *words])


def seen(*words: str, file: str = "fw.bin") -> tuple[int, dict[str, Any], list[str]]:
    result = inspect(*words, "-o", "json", file=file)
    data = json.loads(result.output)
    return result.exit_code, data, [fault["code"] for fault in data["faults"]]


def test_a_good_image_is_described() -> None:
    fitting = ("--partitions", "table.csv", "--chip", "esp32s3", "--secure-version", "3", "--format", "esp32")
    result = inspect(*fitting)
    assert result.exit_code == 0
    assert [line.split(maxsplit=1) for line in result.output.splitlines()[:3]] == [
        ["format", "esp32"],
        ["chip", "esp32s3"],
        ["version", "2.1.0"],
    ]
    assert f"{len(forge.esp32()) / 655.36:.1f} % of a slot of 65536" in result.output
    status, data, faults = seen(*fitting)
    assert (status, faults, data["warnings"]) == (0, [], [])
    assert (data["secure_version"], data["slot_bytes"]) == (3, 65536)
    assert {"name": "project", "value": "door"} in data["facts"]


def test_all_that_speaks_against_it_is_said_at_once() -> None:
    Path("fw.bin").write_bytes(forge.flipped(forge.esp32(segments=(bytes(60_000),)), -1))
    Path("table.csv").write_text(TABLE.format("64K").replace("otadata", "nvs"))
    words = ("--partitions", "table.csv", "--chip", "esp32c3", "--secure-version", "1", "--format", "esp8266")
    status, _, faults = seen(*words)
    assert status == 1
    assert faults == ["hash", "wrong_format", "wrong_chip", "over_slot", "secure_version", "bad_partition"]
    said = "fault: it is for esp32s3, the target is esp32c3; sign the build for esp32c3 [wrong_chip]"
    assert said in inspect(*words).output.splitlines()


def test_a_warning_is_a_yes() -> None:
    Path("fw.bin").write_bytes(forge.esp32(hashed=False))
    result = inspect()
    assert result.exit_code == 0
    assert "warning: it has no appended SHA-256" in result.output


def test_an_unknown_file_is_raw_and_no_fault() -> None:
    Path("fw.bin").write_bytes(b"text")
    assert inspect().output == "format                  raw\nsize                    4 bytes\n"


def test_what_the_image_says_cannot_steer_the_terminal() -> None:
    Path("fw.bin").write_bytes(forge.esp32(first=forge.descriptor("\x1b[2J")))
    assert "\x1b[2J" not in inspect().output
    assert "\\x1b[2J" in inspect().output


def test_the_form_of_a_signature_is_told_by_the_key() -> None:
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path("key.pem").write_bytes(forge.rsa_key(2048).public_key().public_bytes(*form))
    Path("fw.bin").write_bytes(forge.signed(forge.esp8266(), legacy=True))
    assert seen("--public-key", "key.pem")[1]["format"] == "esp8266-legacy"


def test_files_that_cannot_be_read_are_named() -> None:
    assert isinstance(inspect(file="none.bin").exception, NotFoundError)
    assert isinstance(inspect(file=".").exception, RequestError)
    assert isinstance(inspect("--partitions", "none.csv").exception, NotFoundError)
    assert isinstance(inspect("--public-key", "table.csv").exception, RequestError)
    Path("table.csv").write_bytes(b"\xff")
    assert isinstance(inspect("--partitions", "table.csv").exception, PayloadError)
