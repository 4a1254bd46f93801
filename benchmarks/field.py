"""A store with one rollout over many devices, all offered the release: what both benchmarks stand on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.mqtt import MqttBus, MqttSettings
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.core import cohort
from orchestrator.core.ceiling import Ceiling
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
from orchestrator.demo.broker import BrokerInfo
from orchestrator.engine import effects
from orchestrator.ports import Lane, Tx

SECRET = b"benchmark" * 4


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
    return Field(store, {item.device_id: f"{item.id}.{item.attempt}" for item in updates})


def _fill(tx: Tx, devices: int, statement: str) -> None:
    fleet = [Device(f"dev-{number:06d}", "bench", (), "1", 1, 0.0, None, None) for number in range(devices)]
    tx.enrol([(device, "") for device in fleet])
    artifact = Artifact(
        "A" * 43, 1 << 20, "bench", "2", 2, 0, "main", ("bench",), "raw", 0, statement, "file:///bench", None
    )
    tx.add_artifact(artifact, 0.0)
    tx.add_release(Release("bench", "2", 2, (artifact.sha256,), 0.0))
    plan = Plan("bench", "bench", (StagePlan(SizeKind.REST, 0),), in_flight=devices)
    stages = (Stage(devices, devices),)
    made = Rollout(0, plan, Phase.RUNNING, Reason("", ""), "bench", 0.0, stages=stages, cohort_size=devices)
    rollout = tx.add_rollout(made, SECRET)
    members = sorted(cohort.members(SECRET, fleet))
    effects.open_members(tx, rollout, members, 2, 0.0)
    effects.offer(tx, rollout, devices, 0.0, Ceiling(share=1.0))


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
