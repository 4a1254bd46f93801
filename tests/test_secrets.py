"""The scanner finds a secret wherever one is said, and fails the test that said it."""

from __future__ import annotations

import asyncio
import secrets as random_secrets
import subprocess
import sys
from pathlib import Path

import click
import httpx2
import pytest
import structlog
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from tests.support.secrets import Scanner, is_shown_once, scanner

pytest_plugins = ["pytester"]

TOKEN = "otad_" + "Ab1_" * 10
NOTED = "an operator's own password"
SAYS = [sys.executable, "-c", "import sys; print('otad_' + 'Ab1_' * 10, flush=True)"]

PLANTED = """
import logging
import subprocess
import sys
import pytest
import structlog

TOKEN = "otad_" + "Ab1_" * 10

def test_silent(): pass

def test_prints(): print(TOKEN)

def test_prints_an_event(): structlog.get_logger().info("polled", header=TOKEN)

def test_logs(): logging.getLogger("paho").warning("password %s", TOKEN)

@pytest.fixture
def loud():
    yield
    print(TOKEN)

def test_says_it_at_the_end(loud): pass

def test_starts_a_process(tmp_path):
    with (tmp_path / "daemon.log").open("wb") as log:
        subprocess.run([sys.executable, "-c", f"print({TOKEN!r})"], stdout=log, check=True)

def test_fails_anyway():
    print(TOKEN)
    assert False
"""


@pytest.fixture(autouse=True)
def _nothing_before_nor_after() -> None:
    """What these tests say on purpose is theirs."""
    assert scanner.take() == []


def found() -> list[str]:
    return scanner.take()


def test_a_run_fails_with_the_place(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest((Path(__file__).with_name("conftest.py")).read_text())
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(PLANTED)
    result = pytester.runpytest_subprocess("--show-capture=no", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=5, errors=1)
    places = ["Captured stdout call: token", "Captured log call: token", "Captured stdout teardown: token"]
    text = result.stdout.str()
    assert all(place in text for place in places)
    assert "daemon.log of " in text
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (TOKEN, "token"),
        (f"Bearer {TOKEN}\n".encode(), "token"),
        ("-----BEGIN PRIVATE KEY-----\\n", "PEM"),
        ("-----BEGIN EC PRIVATE KEY-----", "PEM"),
        ("https://s3/x?X-Amz-Credential=AKIA%2F20260101&X-Amz-Signature=0a1b", "presigned URL"),
        (f"login failed for {NOTED}", "a secret of this run"),
    ],
)
def test_what_is_found(said: str | bytes, what: str) -> None:
    own = Scanner()
    own.note(NOTED)
    own.look(said, "a place")
    assert own.take() == [f"a place: {what}"]
    assert own.take() == []


@pytest.mark.parametrize(
    "said", ["", None, "otad_[redacted]", "X-Amz-Signature=[redacted]", "-----BEGIN CERTIFICATE-----", "otad_short"]
)
def test_what_is_no_secret(said: str | None) -> None:
    own = Scanner()
    own.look(said, "a place")
    assert own.take() == []


def test_a_short_password_is_no_secret_of_the_run() -> None:
    own = Scanner()
    own.note("secret")
    own.look("the word secret", "a place")
    assert own.take() == []


def test_private_keys_are_known_however_they_are_written() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
    number = key.private_numbers().private_value
    for said in (text, text.splitlines()[1], f"d={number:064x}", f"d: {number}"):
        scanner.look(said, "a place")
        assert found(), said[:5]


def test_generated_tokens_are_known() -> None:
    scanner.look(f"password={random_secrets.token_urlsafe(24)};", "a place")
    assert found() == ["a place: a secret of this run"]


def test_commands_are_listened_to() -> None:
    @click.group()
    def cli() -> None: ...

    @cli.group()
    def device() -> None: ...

    @device.command("add")
    @click.option("--loud", is_flag=True)
    def add(loud: bool) -> None:
        click.echo(TOKEN, err=loud)

    @device.command("get")
    def get() -> None:
        click.echo(TOKEN)

    CliRunner().invoke(cli, ["device", "add"])
    assert found() == []
    CliRunner().invoke(cli, ["device", "add", "--loud"])
    CliRunner().invoke(cli, ["device", "get"])
    assert found() == ["output of ota device add: token", "output of ota device get: token"]
    assert is_shown_once(["--server", "http://x", "device", "add", "d1"])
    assert not is_shown_once(["device", "list", "add"])


async def test_processes_are_listened_to(tmp_path: Path) -> None:
    subprocess.run(SAYS, capture_output=True, check=True)
    assert [place.rsplit(": ", 1)[1] for place in found()] == ["token"]
    process = await asyncio.create_subprocess_exec(*SAYS, stdout=asyncio.subprocess.PIPE)
    await process.communicate()
    assert [place.rsplit(": ", 1)[1] for place in found()] == ["token"]
    with (tmp_path / "daemon.log").open("ab") as log:
        await (await asyncio.create_subprocess_exec(*SAYS, stdout=log)).wait()
    scanner.look_at_files()
    assert found() == [f"daemon.log of {Path(sys.executable).name}: token"]
    scanner.look_at_files()
    assert found() == []


async def test_a_secret_in_two_pieces_is_found() -> None:
    code = "for part in ('otad_Ab1_', 'Ab1_' * 9, '\\n'): print(part, end='', flush=True)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    await process.communicate()
    assert len(found()) == 1


def test_events_that_a_test_catches_are_listened_to() -> None:
    with capture_logs():
        structlog.get_logger().info("polled", header=TOKEN)
    assert found() == ["event polled: token"]


async def test_answers_are_listened_to() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        kinds = {"/problem": "application/problem+json", "/metrics": "text/plain; version=0.0.4"}
        kind = kinds.get(request.url.path, "application/json")
        return httpx2.Response(200, json={"detail": TOKEN}, headers={"content-type": kind})

    transport = httpx2.MockTransport(answer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.post("/problem")
        await client.get("/metrics")
        await client.get("/api/v1/audit")
        await client.post("/api/v1/devices")
        await client.get("/token")
    with httpx2.Client(transport=transport, base_url="http://x") as blocking:
        blocking.get("/problem")
    asked = ("POST /problem", "GET /metrics", "GET /api/v1/audit", "GET /problem")
    assert found() == [f"answer to {request}: token" for request in asked]
