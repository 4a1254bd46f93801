"""`ota backup` and `ota restore` beside a real daemon that is written to all the while."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.demo.broker import BrokerInfo
from tests.support.scene import Deployment, daemon, operator


def ota(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


async def enrol(origin: str, first: int) -> None:
    async with operator(origin) as http:
        devices = [{"id": f"d{number}", "model": "m1"} for number in range(first, first + 50)]
        assert (await http.post("/api/v1/devices", json={"devices": devices})).status_code < 300


def devices_in(database: Path) -> int:
    with closing(sqlite3.connect(database)) as found:
        return int(found.execute("SELECT count(*) FROM devices").fetchone()[0])


async def test_from_one_daemon_to_the_next(tmp_path: Path, open_broker: BrokerInfo) -> None:
    deployment, file = Deployment.made(tmp_path, open_broker.port), tmp_path / "b.tar"
    config = deployment.write()
    async with daemon(config) as running:
        origin = await running.origin()
        await enrol(origin, 0)
        load = asyncio.create_task(enrol(origin, 50))
        made = await asyncio.to_thread(ota, "backup", file, "--config", config, "-o", "json")
        await load
        assert made.exit_code == 0
        assert json.loads(made.stdout)["bytes"]["state.db"] > 0
        await enrol(origin, 100)
        refused = await asyncio.to_thread(ota, "restore", file, "--config", config, "--yes")
        assert refused.exit_code == 1
        assert "stop it first" in str(refused.exception)
        assert (await running.stop())[0] == 0
    assert devices_in(tmp_path / "state.db") == 150
    done = ota("restore", file, "--config", config, "--yes")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0,
        "start the daemon once with `ota serve --after-restore`",
    )
    assert devices_in(tmp_path / "state.db") in (50, 100)
    async with daemon(config) as running:
        _, err = await running.process.communicate()
        assert b"--after-restore" in err
    async with daemon(config, "--after-restore") as running:
        await running.origin()
        assert (await running.stop())[0] == 0
    async with daemon(config) as running:
        await running.origin()
        assert (await running.stop())[0] == 0


def test_a_restore_asks_first(tmp_path: Path) -> None:
    config = Deployment.made(tmp_path).write()
    words = [sys.executable, "-m", "orchestrator", "restore", str(tmp_path / "b.tar"), "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (1, f"error: there is no backup {tmp_path / 'b.tar'}\n")


def test_only_what_says_where_the_database_is_must_be_right(tmp_path: Path) -> None:
    deployment = Deployment.made(tmp_path, mqtt={"keepalive": "never"})
    result = ota("backup", tmp_path / "b.tar", "--config", deployment.write())
    assert str(result.exception) == f"there is no database {tmp_path / 'state.db'}"
    deployment.sections["store"]["url"] = "nonsense"
    result = ota("backup", tmp_path / "b.tar", "--config", deployment.write())
    assert str(result.exception).startswith("store.url: ")


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_a_configuration_that_is_missing_is_named(tmp_path: Path, verb: str) -> None:
    result = ota(verb, tmp_path / "b.tar", "--config", tmp_path / "none.yaml")
    assert "name the file with --config" in str(result.exception)
