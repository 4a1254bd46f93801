"""The command as a process: exit codes, signals, and how fast it starts."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import __version__
from tests.support.bucket import Answer, scripted

OTA = (sys.executable, "-m", "orchestrator")
HEAVY = ("alembic", "boto3", "cryptography", "fastapi", "httpx2", "paho", "pydantic", "rich", "sqlalchemy", "uvicorn")
RUNNING = json.dumps(
    {
        "name": "spring",
        "phase": "running",
        "release": "r",
        "cohort_size": 1,
        "in_flight": 0,
        "stages": [],
        "evidence": [],
        "bound": None,
        "standing": {"text": "it waits"},
        "severity": "none",
        "advisories": [],
        "fixes_below": None,
    }
).encode()


def ota(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTA_")} | environ
    return subprocess.run([*OTA, *words], capture_output=True, text=True, timeout=30, env=environment, check=False)


def test_help_and_version() -> None:
    shown = ota("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    words = {line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  ") and line.strip()}
    assert words >= {"artifact", "check-config", "device", "keys", "release", "rollout", "serve", "simulate"}
    assert ota("--version").stdout == f"ota, version {__version__}\n"


@pytest.mark.parametrize("words", [("explode",), ("--colour",), ("rollout", "get"), ("device", "list", "--limit", "x")])
def test_wrong_usage_is_exit_code_2(words: tuple[str, ...]) -> None:
    result = ota(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Error: " in result.stderr


def test_an_error_is_exit_code_1_without_a_traceback() -> None:
    result = ota("--token-file", "/nowhere", "device", "list")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: the operator token /nowhere cannot be read: No such file or directory; name it with --token-file\n"
    )


def test_every_fault_of_a_configuration_is_a_line_and_the_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mqtt: {keepalive: 60}\ncolour: red\n")
    result = ota("serve", "--config", str(path))
    assert (result.returncode, result.stdout) == (1, "")
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["error", "mqtt.keepalive"],
        ["error", "colour"],
        ["error", "trust.trigger_key_file"],
        ["error", "trust.public_keys_file"],
        ["error", "http.operator_token_file"],
    ]


def test_a_missing_configuration_is_named() -> None:
    result = ota("serve", OTA_CONFIG="/nowhere/config.yaml")
    assert (result.returncode, result.stderr) == (
        1,
        "error: /nowhere/config.yaml: cannot be read (No such file or directory); name the file with --config\n",
    )


def test_an_interrupt_is_exit_code_130(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    with scripted(lambda _: Answer(200, RUNNING)) as server:
        words = ("--server", server.endpoint, "--token-file", str(token), "rollout", "watch", "spring")
        with subprocess.Popen([*OTA, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("spring  running")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
    assert (process.returncode, err.split()) == (130, ["aborted"])


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    device = {"id": "d1", "model": "m1", "version": "", "rel": 0, "online": None, "seen_at": None, "endpoints": None}
    with scripted(lambda _: Answer(200, json.dumps([device] * 9999).encode())) as server:
        words = ("--server", server.endpoint, "--token-file", str(token), "device", "list")
        with subprocess.Popen([*OTA, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()


def cpu_s(*words: str) -> float:
    """Run a process and return the processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, capture_output=True, timeout=30, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_starts_fast() -> None:
    """Measured against Python itself, in turns, and the best of each: both are slower on a busy machine."""
    bare, ours = [], []
    for _ in range(7):
        bare.append(cpu_s(sys.executable, "-c", "pass"))
        ours.append(cpu_s(*OTA, "--help"))
        if min(ours) < 12 * min(bare):
            return
    raise AssertionError(f"`ota --help` takes {min(ours):.3f} s, and Python alone {min(bare):.3f} s")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, orchestrator.cli.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert set(HEAVY).isdisjoint(loaded.stdout.split())


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = tmp_path / "operator-token"
    path.write_text("x")
    return str(path)


def test_a_full_disk_under_the_output_is_an_error_and_no_traceback(token: str) -> None:
    with scripted(lambda _: Answer(200, b"[]")) as server:
        words = shlex.join([*OTA, "--server", server.endpoint, "--token-file", token, "device", "list"])
        done = subprocess.run(
            ["sh", "-c", f"{words} > /dev/full"], capture_output=True, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device; nothing more was done\n")


def test_who_closed_our_input_is_not_asked(token: str) -> None:
    words = shlex.join([*OTA, "--token-file", token, "rollout", "abort", "spring"])
    done = subprocess.run(["sh", "-c", f"{words} <&-"], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("nobody can be asked here, so confirm it with --yes\n")
