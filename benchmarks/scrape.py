"""A scrape of `/metrics` with a large fleet and three rollouts open, each for a third of it: its time and its size.

The daemon is a process of its own. No broker answers it, so that it holds its rollouts and does nothing else meanwhile.
`python -m benchmarks.scrape DEVICES` for another fleet.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import httpx2
import yaml

from benchmarks.field import ENROLLED, SECRET, add_release, enrol, made, statement
from benchmarks.times import percentile, told_ms
from orchestrator.adapters.keys import create_keys
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.core.model import Phase, Plan, Reason, Rollout, SizeKind, Stage, StagePlan
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.targeting import cohort
from orchestrator.demo.broker import HOST, free_port
from orchestrator.engine.rollouts import effects
from orchestrator.ports import Lane, Tx

DEVICES = 100_000
ROLLOUTS = 3
IN_FLIGHT = 1000
"""Devices of each rollout that are on their way."""
SCRAPES = 100
MOST_S = 0.200
_START_S = 60.0
_STAGES = (StagePlan(SizeKind.PPM, 100_000), StagePlan(SizeKind.REST, 0))


class Found(NamedTuple):
    """What scrapes took.

    Attributes:
        times: of each, in seconds.
        size_bytes: of the last one.
    """

    times: Sequence[float]
    size_bytes: int


async def run(directory: Path, devices: int) -> None:
    """Print the figures."""
    found = await measure(directory, devices)
    p99_s = percentile(found.times, 0.99)
    print(
        f"a scrape with {devices:,} devices and {ROLLOUTS} open rollouts: {told_ms(found.times)}, "
        f"{found.size_bytes / 1000:.0f} kB; p99 at most {1000 * MOST_S:.0f} ms: ratio {p99_s / MOST_S:.2f}"
    )


async def measure(directory: Path, devices: int) -> Found:
    """Return what scrapes of a daemon with such a fleet take."""
    await prepare(directory, devices)
    times: list[float] = []
    async with _daemon(directory) as http:
        for _ in range(SCRAPES):
            begun = time.perf_counter()
            answer = await http.get("/metrics")
            times.append(time.perf_counter() - begun)
            assert f"ota_devices {devices:.1f}\n" in answer.text
            assert answer.text.count("\nota_rollout_phase{") == ROLLOUTS
    return Found(times, len(answer.content))


async def prepare(directory: Path, devices: int) -> None:
    """Make keys and a database with such a fleet and the rollouts."""
    create_keys(directory / "keys", "bench")
    store = await asyncio.to_thread(open_store, f"sqlite:///{directory / 'state.db'}")
    await enrol(store, devices, "bench", "dev")
    members = sorted(cohort.members(SECRET, made(devices, "bench", "dev")))
    signed = statement(directory / "keys")
    await store.transact(Lane.BULK, lambda tx: add_release(tx, "bench", signed))
    for number in range(ROLLOUTS):
        await _open(store, f"rollout-{number}", members[number::ROLLOUTS])
    await store.close()


async def _open(store: SqlStore, name: str, members: Sequence[cohort.Member]) -> None:
    """Open a rollout whose second stage has been taken in."""
    size, tenth = len(members), len(members) // 10
    stages = (Stage(tenth, tenth), Stage(size - tenth, size - tenth))
    plan, now = Plan(name, "bench", _STAGES, in_flight=IN_FLIGHT), time.time()
    draft = Rollout(0, plan, Phase.RUNNING, Reason("", ""), "bench", now, stage=1, stages=stages, cohort_size=size)
    rollout = await store.transact(Lane.BULK, lambda tx: tx.add_rollout(draft, SECRET))
    left = iter(members)
    while piece := list(islice(left, ENROLLED)):
        await store.transact(Lane.BULK, partial(_take_in, rollout=rollout, members=piece, now=now))
    await store.transact(Lane.BULK, lambda tx: effects.offer(tx, rollout, IN_FLIGHT, now, Ceiling(share=1.0)))


def _take_in(tx: Tx, rollout: Rollout, members: Sequence[cohort.Member], now: float) -> None:
    effects.open_members(tx, rollout, members, 2, now)


@asynccontextmanager
async def _daemon(directory: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Run `ota serve` on the database in a folder; gives a client that scrapes."""
    watched = f"{HOST}:{free_port()}"
    (directory / "config.yaml").write_text(yaml.safe_dump(_config(directory, watched)))
    words = (sys.executable, "-m", "orchestrator", "serve", "--config", str(directory / "config.yaml"))
    with (directory / "daemon.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log)
    try:
        async with httpx2.AsyncClient(base_url=f"http://{watched}", trust_env=False, timeout=30) as http:
            await _until_it_answers(http, process, directory / "daemon.log")
            yield http
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def _config(directory: Path, watched: str) -> dict[str, object]:
    keys = directory / "keys"
    trust = {"trigger_key_file": str(keys / "trigger.pem"), "public_keys_file": str(keys / "device-keys.json")}
    return {
        "deployment": "bench",
        "http": {"listen": f"{HOST}:0"},
        "operators": {"bootstrap_token": False},
        "metrics": {"listen": watched},
        "mqtt": {"url": f"mqtt://{HOST}:{free_port()}"},
        "store": {"url": f"sqlite:///{directory / 'state.db'}"},
        "trust": trust,
    }


async def _until_it_answers(http: httpx2.AsyncClient, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(_START_S):
        while process.returncode is None:
            try:
                await http.get("/healthz")
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
    raise RuntimeError(f"the daemon did not start: {log.read_text()}")


def main() -> None:
    """Measure with as many devices as the command line says."""
    devices = int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES
    with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
        asyncio.run(run(Path(folder), devices))


if __name__ == "__main__":
    main()
