"""A store with one rollout over many devices, all offered the release: what the benchmarks stand on."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from orchestrator.adapters.mqtt import MqttBus, MqttSettings
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.core import trigger
from orchestrator.core.model import (
    Artifact,
    Device,
    Phase,
    Plan,
    Reason,
    Release,
    Rollout,
    SizeKind,
    Stage,
    StagePlan,
    UpdateState,
)
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.targeting import cohort
from orchestrator.demo.broker import BrokerInfo
from orchestrator.engine.offers import holds
from orchestrator.engine.rollouts import effects
from orchestrator.ports import Lane, Tx
from orchestrator.wire import token

SECRET = b"benchmark" * 4
ENROLLED = 20_000
"""Devices that one transaction registers."""


@dataclass(frozen=True, slots=True)
class Field:
    """A prepared store.

    Attributes:
        store: the store.
        attempts: attempt (`<update>.<attempt>`) by device, in scattered order.
    """

    store: SqlStore
    attempts: dict[str, str]


async def prepare(directory: Path, devices: int, statement: str) -> Field:
    """Make a store in which every device was offered the release."""
    store = await asyncio.to_thread(open_store, f"sqlite:///{directory / 'bench.db'}")
    await store.transact(Lane.BULK, lambda tx: _fill(tx, devices, statement))
    updates = await store.read(lambda tx: tx.updates_in(1, (UpdateState.OFFERED,)))
    assert len(updates) == devices, f"{len(updates)} of {devices} devices were offered the release"
    return Field(store, {item.device_id: f"{item.id}.{item.attempt}" for item in updates})


def _fill(tx: Tx, devices: int, statement: str) -> None:
    fleet = list(made(devices, "bench", "dev"))
    tx.enrol([(device, "") for device in fleet])
    add_release(tx, "bench", statement)
    plan = Plan("bench", "bench", (StagePlan(SizeKind.REST, 0),), in_flight=devices)
    stages = (Stage(devices, devices),)
    draft = Rollout(0, plan, Phase.RUNNING, Reason("", ""), "bench", 0.0, stages=stages, cohort_size=devices)
    rollout = tx.add_rollout(draft, SECRET)
    members = sorted(cohort.members(SECRET, fleet))
    effects.open_members(tx, rollout, members, 2, 0.0)
    for _ in range(0, devices, holds.PIECE):
        effects.offer(tx, rollout, devices, 0.0, Ceiling(share=1.0))


def made(count: int, model: str, prefix: str) -> Iterator[Device]:
    """Yield devices that run release counter 1."""
    for number in range(count):
        yield Device(f"{prefix}-{number:06d}", model, (), "1", 1, 0.0, None, None)


async def enrol(store: SqlStore, count: int, model: str, prefix: str) -> None:
    """Register many devices."""
    devices = made(count, model, prefix)
    while piece := list(islice(devices, ENROLLED)):
        await store.transact(Lane.BULK, partial(_enrol, devices=piece))


def _enrol(tx: Tx, devices: list[Device]) -> None:
    tx.enrol([(device, "") for device in devices])


def artifact_of(model: str, statement: str = "", rel: int = 2) -> Artifact:
    """Return an artifact for a hardware model, named like it."""
    sha256 = token.encode64(hashlib.sha256(f"{model} {rel}".encode()).digest())
    place = f"file:///{model}-{rel}"
    return Artifact(sha256, 1 << 20, model, str(rel), rel, 0, "main", (model,), "raw", 0, statement, place, None)


def statement(keys: Path, model: str = "bench", rel: int = 2) -> str:
    """Return the statement of an artifact, signed with the key in a folder."""
    signer = FileSigner.load(keys / "artifact.pem")
    claims = trigger.statement_claims(artifact_of(model, rel=rel), issued_at=time.time())
    signed = token.signing_input(token.TokenType.ARTIFACT, signer.kid, claims)
    return token.assemble(signed, signer.sign(signed)).decode()


def add_release(tx: Tx, model: str, statement: str, rel: int = 2, name: str = "") -> None:
    """Make a release of the artifact for a hardware model, named like it if no name is given."""
    artifact = artifact_of(model, statement, rel)
    tx.add_artifact(artifact, 0.0)
    tx.add_release(Release(name or model, str(rel), rel, (artifact.sha256,), 0.0))


def unplugged() -> MqttBus:
    """Return a bus that never connects, for what comes by HTTP alone."""
    return MqttBus(MqttSettings("127.0.0.1", 1, "unplugged"), ())


@asynccontextmanager
async def connected(broker: BrokerInfo, name: str, *topics: str) -> AsyncIterator[MqttBus]:
    """A bus that is connected."""
    bus = MqttBus(MqttSettings(broker.host, broker.port, name, session_expiry_s=0), topics)
    task = asyncio.create_task(bus.run())
    while not bus.link:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def publish_from_elsewhere(port: int, path: Path) -> None:
    """Publish the reports of a file from another process."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.load", str(port), str(path))
    if await process.wait():
        raise RuntimeError("the load failed")
