from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.cli.check_config import check_config_command

SHIPPED = Path(__file__).parents[2] / "config.yaml"


@pytest.fixture
def credentials(tmp_path: Path) -> str:
    for name in ("trigger-key", "device-keys", "operator-token"):
        (tmp_path / name).write_text("hunter2\n")
    return str(tmp_path)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(check_config_command, arguments, env=environ)


def test_no_faults(credentials: str) -> None:
    result = run("--config", str(SHIPPED), CREDENTIALS_DIRECTORY=credentials)
    assert (result.exit_code, result.stdout) == (0, f"{SHIPPED}: no faults\n")


def test_every_fault_is_a_line_and_the_end_is_one() -> None:
    result = run("--config", str(SHIPPED), OTA_MQTT__KEEPALIVE="60")
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "mqtt.keepalive",
        "trust.trigger_key_file",
        "trust.public_keys_file",
        "http.operator_token_file",
    ]


def test_the_effective_settings_hold_paths_but_no_secret(credentials: str) -> None:
    result = run(
        "--config", str(SHIPPED), "--print-effective", CREDENTIALS_DIRECTORY=credentials, OTA_LOG__LEVEL="debug"
    )
    assert result.exit_code == 0
    printed = yaml.safe_load(result.stdout)
    assert printed["log"]["level"] == "debug"
    assert printed["mqtt"]["keepalive"] == "1m"
    assert printed["http"]["operator_token_file"] == f"{credentials}/operator-token"
    assert "hunter2" not in result.stdout


def test_the_file_may_be_named_by_the_environment(credentials: str) -> None:
    result = run(OTA_CONFIG=str(SHIPPED), CREDENTIALS_DIRECTORY=credentials)
    assert (result.exit_code, result.stdout) == (0, f"{SHIPPED}: no faults\n")


def test_machines_get_json(credentials: str, tmp_path: Path) -> None:
    words = ("--config", str(SHIPPED), "-o", "json")
    result = run(*words, CREDENTIALS_DIRECTORY=credentials)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"config": str(SHIPPED), "faults": []})
    shown = run(*words, "--print-effective", CREDENTIALS_DIRECTORY=credentials)
    assert json.loads(shown.stdout)["effective"]["mqtt"]["keepalive"] == "1m"
    bad = tmp_path / "config.yaml"
    bad.write_text("colour: red\n")
    result = run("--config", str(bad), "-o", "json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert any(fault.startswith("colour: ") for fault in json.loads(result.stdout)["faults"])
