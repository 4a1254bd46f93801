from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.simulate import simulate_command
from orchestrator.demo.broker import BrokerInfo
from orchestrator.errors import ConfigError
from orchestrator.sim.start import Request, simulate
from orchestrator.wire.report import Kind
from tests.sim.issuer import Build, Issuer
from tests.sim.scene import ear, offer
from tests.sim.web import artifact, web

COMMAND = "from orchestrator.cli.simulate import simulate_command; simulate_command()"


@pytest.fixture
def keys(tmp_path: Path, issuer: Issuer) -> Path:
    path = tmp_path / "device-keys.json"
    path.write_text(json.dumps(issuer.document()))
    return path


async def spawn(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-c", COMMAND, *arguments, stdout=pipe, stderr=pipe)


async def test_the_command_runs_until_a_signal_and_tells_what_happened(
    issuer: Issuer, good: Build, open_broker: BrokerInfo, keys: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    logins = tmp_path / "devices.jsonl"
    logins.write_text('{"device":"d1","model":"sim-a","token":"secret"}\n{"device":"d2"}\n{"device":"d3"}\n')
    async with ear(open_broker) as heard, web() as server:
        server.routes["/a"] = artifact(good)
        process = await spawn(
            *("--keys", str(keys), "--broker", open_broker.url, "--server", server.origin, "--loopback"),
            *("--credentials", str(logins), "--devices", "2", "--speed", "1000", "--journal", str(journal)),
        )
        await heard.until_online(["d1", "d2"])
        await heard.send("d1", offer(issuer, "d1", good, server))
        await heard.until_said(Kind.CONFIRMED, ["d1"])
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out)
    assert (summary["devices"], summary["confirmed"], summary["connected"]) == (2, 1, 0)
    assert summary["versions"] == {"1.0.0": 1, "1.1.0": 1}
    assert err.decode().startswith("connected 0  accepted 0")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    sent = [entry["kind"] for entry in lines if entry["event"] == "sent"]
    said = [str(kind) for kind in heard.kinds("d1")]
    assert sent in (said, said[:-1])  # the signal may come before the broker's acknowledgement of the last one


async def test_a_killed_simulator_leaves_last_wills(open_broker: BrokerInfo, keys: Path) -> None:
    async with ear(open_broker) as heard:
        process = await spawn("--keys", str(keys), "--broker", open_broker.url, "--devices", "3")
        await heard.wait_for(lambda: len(heard.of("hello")) == 3)
        process.kill()
        await process.communicate()
        await heard.wait_for(lambda: len([each for each in heard.of("state") if not each.said["online"]]) == 3)


async def test_the_command_ends_after_its_duration(open_broker: BrokerInfo, keys: Path) -> None:
    process = await spawn("--keys", str(keys), "--broker", open_broker.url, "--duration", "0.2", "--seed", "9")
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["seed"] == 9


def test_a_fleet_without_a_broker_says_so(keys: Path) -> None:
    arguments = ["--keys", str(keys), "--broker", "mqtt://127.0.0.1:1", "--devices", "2", "--duration", "1"]
    result = CliRunner().invoke(simulate_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["link_lost"]["broker_unreachable"] >= 2
    assert "accepted 0" in result.stderr


def request(keys: Path) -> Request:
    return Request(keys, broker="mqtt://127.0.0.1:1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"broker": None}, "broker: devices of channel push"),
        ({"changes": {"channels": {"poll": 1}}}, "server: devices of channel poll"),
        ({"broker": "http://127.0.0.1:1"}, "must be mqtt://host:port"),
        ({"broker": "mqtt://"}, "must be mqtt://host:port"),
        ({"server": "http://127.0.0.1:1/api"}, "must be http://host:port"),
        ({"server": "127.0.0.1:1"}, "must be http://host:port"),
        ({"changes": {"bad_share": 2}}, "bad_share: Expected `float` <= 1"),
        ({"behaviour": Path("/nonexistent.yaml")}, "cannot be read"),
        ({"credentials": Path("/nonexistent.jsonl")}, "ota device add"),
        ({"journal": Path("/nonexistent/j")}, "cannot be written"),
        ({"keys": Path("/nonexistent.json")}, "ota keys init"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_starts(keys: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        simulate(replace(request(keys), **changes))


def test_a_document_that_is_no_keyset_is_refused(keys: Path) -> None:
    keys.write_text("{}")
    with pytest.raises(ConfigError, match="not a document of public keys"):
        simulate(request(keys))


def test_more_devices_than_credentials_are_refused(keys: Path, tmp_path: Path) -> None:
    logins = tmp_path / "devices.jsonl"
    logins.write_text('{"device":"d1"}\n')
    with pytest.raises(ConfigError, match="has 1 devices, 2 are asked for"):
        simulate(replace(request(keys), credentials=logins, changes={"devices": 2}))
