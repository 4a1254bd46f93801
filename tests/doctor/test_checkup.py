"""`ota doctor` on whole deployments: real databases, brokers, buckets and keys, and what is wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.adapters.store import open_store
from orchestrator.cli.main import cli
from orchestrator.core.model import Artifact
from orchestrator.daemon import checkup
from orchestrator.demo import bucket
from orchestrator.demo.broker import BrokerInfo
from orchestrator.doctor.results import Level, Result
from orchestrator.ports import Lane, Tx
from tests.doctor.conftest import StartPlace
from tests.support.bucket import bucket_endpoint, new_name
from tests.support.factory import make_artifact
from tests.support.scene import Deployment, daemon

__all__ = ["bucket_endpoint"]

SECRET = "hush-hush-this-is-secret"


def made(folder: Path, broker_port: int | None = None, **changes: Mapping[str, object]) -> Deployment:
    deployment = Deployment.made(folder, broker_port, **changes)
    (folder / "operator-token").chmod(0o600)
    return deployment


def stored(deployment: Deployment, *uris: str) -> Path:
    """Make the database of a deployment as a daemon leaves it, with these artifacts."""
    path = deployment.folder / "state.db"

    async def work() -> None:
        store = open_store(f"sqlite:///{path}")
        for rel, uri in enumerate(uris):
            artifact = make_artifact(rel + 1, uri=uri)
            await store.transact(Lane.OPERATOR, partial(_add, artifact=artifact))
        await store.close()

    asyncio.run(work())
    path.chmod(0o600)
    return path


def _add(tx: Tx, artifact: Artifact) -> None:
    tx.add_artifact(artifact, 1.0)


def seen(deployment: Deployment, now: float | None = None) -> dict[str, Result]:
    clock = time.time if now is None else lambda: now or 0.0
    return {found.name: found for found in checkup.look(deployment.write(), {}, clock)}


def told(found: Mapping[str, Result]) -> dict[str, str]:
    return {name: result.level.name for name, result in found.items() if name != "clock"}


def test_a_good_deployment_without_a_daemon(tmp_path: Path, brokers: StartPlace) -> None:
    place = brokers("acl", "passwords")
    address, login = place.address, place["ota-orchestrator"]
    (tmp_path / "password").write_text(login.password or "")
    (tmp_path / "password").chmod(0o600)
    mqtt = {
        "url": f"mqtts://{address.host}:{address.port}",
        "ca_file": address.ca_file,
        "username": login.name,
        "password_file": str(tmp_path / "password"),
    }
    deployment = made(tmp_path, mqtt=mqtt)
    stored(deployment)
    found = seen(deployment)
    assert told(found) == {
        "config": "OK",
        "daemon": "WARNING",
        "store.disk": "OK",
        "store.file": "OK",
        "store.integrity": "OK",
        "store.schema": "OK",
        "broker.reach": "OK",
        "broker.login": "OK",
        "s3": "UNKNOWN",
        "keys": "OK",
        "certificate.broker": "WARNING" if found["certificate.broker"].level is Level.WARNING else "OK",
        "file.operator-token": "OK",
        "file.mqtt-password": "OK",
        "file.trigger-key": "OK",
        "file.device-keys": "OK",
    }
    (tmp_path / "password").write_text(SECRET)
    wrong = seen(deployment)
    assert wrong["broker.login"].level is Level.FAULT
    assert SECRET not in str(wrong)
    ended = seen(deployment, now=4_000_000_000.0)["certificate.broker"]
    assert (ended.level, ended.remedy) == (Level.FAULT, "replace it now")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_a_running_daemon_is_asked_and_not_disturbed(tmp_path: Path, open_broker: BrokerInfo) -> None:
    deployment = made(tmp_path, open_broker.port)
    async with daemon(deployment.write()) as running:
        await running.origin()
        await running.logs("broker.connected")
        found = await asyncio.to_thread(seen, deployment)
        assert (found["daemon"].level, found["daemon"].text) == (
            Level.UNKNOWN,
            "it runs; on which port it listens is not written anywhere",
        )
        assert found["broker.reach"].level is Level.OK
        assert "not tried while a daemon may run" in found["broker.login"].text
        assert found["store.integrity"].level is Level.OK
        code, _ = await running.stop()
        assert code == 0
    assert not [line for line in running.lines if line["event"] == "broker.lost"]


def test_a_damaged_database_and_an_unknown_schema_are_faults(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    path = stored(deployment)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    assert seen(deployment)["store.schema"].level is Level.FAULT
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096 * 3)
    broken = seen(deployment)["store.integrity"]
    assert broken.level is Level.FAULT
    assert "ota restore" in broken.remedy
    path.write_bytes(b"x" * 9000)
    found = seen(deployment)
    assert found["store.integrity"].level is Level.FAULT
    assert found["keys"].level is Level.UNKNOWN, "nobody shall replace keys because a database is damaged"
    assert "see `store` above" in found["keys"].remedy


def test_a_broker_whose_name_is_none_stops_no_look(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    deployment.sections["mqtt"]["url"] = f"mqtts://{'a' * 64}.example.net"
    found = seen(deployment)
    assert found["broker.reach"].level is Level.FAULT
    assert found["certificate.broker"].level is Level.UNKNOWN
    assert found["keys"].level is Level.OK


def test_secrets_that_others_can_read_are_faults_and_never_shown(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    (tmp_path / "operator-token").write_text(SECRET)
    (tmp_path / "operator-token").chmod(0o644)
    (tmp_path / "keys" / "trigger.pem").chmod(0o640)
    (tmp_path / "keys" / "device-keys.json").chmod(0o666)
    found = seen(deployment)
    assert told(found)["file.operator-token"] == "FAULT"
    assert told(found)["file.trigger-key"] == "WARNING"
    assert told(found)["file.device-keys"] == "FAULT"
    assert SECRET not in str(found)


def test_keys_that_devices_would_not_accept_are_a_fault(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    deployment.sections["trust"]["trigger_key_file"] = str(tmp_path / "keys" / "artifact.pem")
    found = seen(deployment)["keys"]
    assert found.level is Level.FAULT
    assert "No trigger key at hand is good" in found.text


async def test_s3_is_listed_looked_at_and_fetched_as_devices_do(tmp_path: Path, bucket_endpoint: str) -> None:
    name = new_name()
    await bucket.create(bucket_endpoint, name)
    await bucket.put(bucket_endpoint, name, "a/radio.bin", b"bytes")
    (tmp_path / "s3-secret").write_text(bucket.SECRET_ACCESS_KEY)
    (tmp_path / "s3-secret").chmod(0o600)
    s3 = {
        "endpoint_url": bucket_endpoint,
        "access_key_id": bucket.ACCESS_KEY_ID,
        "secret_access_key_file": str(tmp_path / "s3-secret"),
    }
    deployment = made(tmp_path, s3=s3, sources={"watch": [f"s3://{name}/a/"]})
    await asyncio.to_thread(stored, deployment, f"s3://{name}/a/radio.bin")
    found = await asyncio.to_thread(seen, deployment)
    assert {key: level for key, level in told(found).items() if "s3" in key} == {
        "s3.list": "OK",
        "s3.head": "OK",
        "s3.presigned": "OK",
        "clock.s3": "OK",
        "file.s3-secret": "OK",
    }
    late = await asyncio.to_thread(seen, deployment, 4_000_000_000.0)
    assert late["clock.s3"].level is Level.FAULT
    assert bucket.SECRET_ACCESS_KEY not in str(found)
    assert "X-Amz" not in str(found)
    deployment.sections["sources"]["watch"] = [f"s3://{new_name()}/"]
    gone = await asyncio.to_thread(seen, deployment)
    assert gone["s3.list"].level is Level.FAULT


def test_faults_of_the_configuration_are_told_and_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    deployment = made(tmp_path, store={"url": "postgres://x"})
    found = seen(deployment)
    assert found["config"].level is Level.FAULT
    assert (found["store"].level, found["store"].text) == (
        Level.UNKNOWN,
        "not looked at, for the configuration of store has faults",
    )
    assert found["broker.reach"].level is Level.FAULT
    assert found["file.trigger-key"].level is Level.OK


def test_credentials_that_only_the_service_sees_are_unknown_and_no_fault(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    del deployment.sections["trust"]["trigger_key_file"]
    found = seen(deployment)
    assert found["config"].level is Level.UNKNOWN
    assert "credentials" in found["config"].remedy


def ota(*words: object) -> Any:
    return CliRunner().invoke(cli, ["doctor", *map(str, words)])


def test_the_command_ends_by_the_worst_and_speaks_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    deployment = made(tmp_path)
    result = ota("--config", deployment.write(), "-o", "json")
    found = {item["name"]: item for item in json.loads(result.stdout)}
    assert (result.exit_code, found["broker.reach"]["level"]) == (1, "fault")
    assert found["broker.reach"]["remedy"]
    result = ota("--config", tmp_path / "none.yaml")
    assert result.exit_code == 1
    assert result.stdout.startswith("FAULT  config")


@pytest.mark.parametrize(
    ("levels", "code"),
    [([], 0), ([Level.OK, Level.UNKNOWN], 0), ([Level.WARNING, Level.OK], 6), ([Level.FAULT, Level.WARNING], 1)],
)
def test_every_level_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, levels: list[Level], code: int) -> None:
    monkeypatch.setattr(
        checkup, "look", lambda path, environ: (Result("x", level, "text", "remedy") for level in levels)
    )
    assert ota("--config", os.devnull).exit_code == code
