"""`ota doctor broker` and `ota broker dynsec`, as commands."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.doctor import dynsec
from orchestrator.doctor.probes import LIMIT, NEGATIVE, POSITIVE
from orchestrator.errors import ConfigError, RequestError
from tests.doctor.brokers import NAMES, Place
from tests.doctor.conftest import StartPlace

pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning",
)


def ota(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def examine(place: Place, *more: object) -> Result:
    address = place.address
    where = ("--broker", f"mqtts://{address.host}:{address.port}", "--ca-file", address.ca_file)
    return ota("doctor", "broker", *where, "--device", "dev-a", "--other", "dev-b", *more)


def passwords(place: Place, path: Path, *names: str) -> Path:
    logins = [place[name] for name in names or NAMES]
    lines = [json.dumps({"device": login.name, "mqtt_password": login.password}) for login in logins]
    path.write_text("\n".join(lines))
    return path


def test_a_good_broker_passes(brokers: StartPlace, tmp_path: Path) -> None:
    place = brokers("acl", "passwords")
    result = examine(place, "--credentials", passwords(place, tmp_path / "logins"))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("pass")] == [
        probe.name for probe in (POSITIVE, *NEGATIVE, LIMIT)
    ]
    assert "      note: a shared subscription would lose 10 of 20 reports here: use none" in lines
    assert not any(str(place[name].password) in result.output for name in NAMES)


def test_certificates_come_from_a_folder(brokers: StartPlace, tmp_path: Path) -> None:
    place = brokers("dynsec", "certificates")
    for name in NAMES:
        shutil.copy(str(place[name].cert_file), tmp_path / f"{name}.pem")
        shutil.copy(str(place[name].key_file), tmp_path / f"{name}.key")
    result = examine(place, "--certificates", tmp_path, "-o", "json")
    assert result.exit_code == 0
    assert all(item["passed"] for item in json.loads(result.stdout))


def test_a_bad_broker_is_exit_code_1_and_says_what_to_do(brokers: StartPlace, tmp_path: Path) -> None:
    place = brokers("none", "passwords")
    file = passwords(place, tmp_path / "logins")
    result = examine(place, "--credentials", file)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = lines.index("FAIL  anonymous       nobody comes in without a login")
    assert lines[at + 1] == "      a client without a login heard a command; set allow_anonymous false"
    result = examine(place, "--credentials", file, "-o", "json")
    assert result.exit_code == 1
    assert {item["name"] for item in json.loads(result.stdout) if not item["passed"]} >= {"anonymous", "forge_command"}


@pytest.mark.parametrize("more", [(), ("--credentials", "x", "--certificates", "y")])
def test_logins_come_from_one_place(brokers: StartPlace, more: tuple[str, ...]) -> None:
    result = examine(brokers("acl", "passwords"), *more)
    assert isinstance(result.exception, RequestError)
    assert result.exception.message == "give either --credentials or --certificates"


def test_missing_logins_are_named(brokers: StartPlace, tmp_path: Path) -> None:
    place = brokers("acl", "passwords")
    result = examine(place, "--credentials", passwords(place, tmp_path / "logins", "dev-a"))
    assert isinstance(result.exception, RequestError)
    assert "holds no mqtt_password of ota-doctor, dev-b" in result.exception.message
    result = examine(place, "--certificates", tmp_path)
    assert isinstance(result.exception, RequestError)
    assert "dev-b.key" in result.exception.message


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://x:y", "x"])
def test_an_address_is_a_url(url: str, tmp_path: Path, brokers: StartPlace) -> None:
    file = passwords(brokers("acl", "passwords"), tmp_path / "logins")
    more = ("--device", "dev-a", "--other", "dev-b", "--credentials", file)
    result = ota("doctor", "broker", "--broker", url, *more)
    assert isinstance(result.exception, RequestError)
    assert result.exception.code == "bad_url"


def test_the_document_of_the_plugin_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    file, out = tmp_path / "logins", tmp_path / "dynsec.json"
    file.write_text('{"device":"ota-orchestrator","mqtt_password":"hunter2"}\n{"device":"dev-a"}\n')
    out.write_text("old")
    result = ota("broker", "dynsec", "--credentials", file, "--out", out)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"2 logins are in {out}, 1 of them without a password")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    again = json.loads(ota("broker", "dynsec", "--credentials", file, "--out", out, "-o", "json").stdout)
    assert again == {"file": str(out), "logins": 2, "without_password": 1}
    written = json.loads(out.read_text())
    assert [client["username"] for client in written["clients"]] == [dynsec.DAEMON, "dev-a"]
    assert "hunter2" not in out.read_text()


def test_a_document_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    file.write_text('{"device":"ota-orchestrator"}\n')
    result = ota("broker", "dynsec", "--credentials", file, "--out", tmp_path / "nowhere" / "x")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr
    result = ota("broker", "dynsec", "--credentials", tmp_path / "none", "--out", tmp_path / "x")
    assert isinstance(result.exception, ConfigError)
