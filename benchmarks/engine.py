"""The engine on a real store and a real broker, and a crowd of devices in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from benchmarks.field import connected
from orchestrator.core.pace.budget import Budget
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.demo.broker import BrokerInfo
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.offers.sealer import Sealer, SealerSettings
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.trust.keyring import Standing
from orchestrator.ports import Lane, Signer, Store, Tx
from orchestrator.wire import topics

Result = TypeVar("Result")
DEPLOYMENT = "bench"
ORIGIN = "https://updates.example"
BATCH = 50
NO_CEILING = Ceiling(share=1.0, floor=1_000_000_000, budget=Budget(1_000_000, 0.0))


class Came(NamedTuple):
    """A trigger or a recall that a device got.

    Attributes:
        at: when, on the clock that all processes of a machine share (`time.monotonic`).
        device: which device.
        act: `install` or `cancel`.
        cid: rollout.
    """

    at: float
    device: str
    act: str
    cid: str


@dataclass(slots=True)
class Engine:
    """What runs.

    Attributes:
        conductor: decisions.
        recorder: reports in.
        dispatcher: triggers out.
        loops: all that runs.
    """

    conductor: Conductor
    recorder: Recorder
    dispatcher: Dispatcher
    loops: list[asyncio.Task[None]]

    async def until(self, is_so: Callable[[], bool], limit_s: float = 120.0) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it is not so for too long.
        """
        async with asyncio.timeout(limit_s):
            while not is_so():
                await asyncio.sleep(0.005)
                for task in self.loops:
                    if task.done():
                        task.result()


@asynccontextmanager
async def running(
    broker: BrokerInfo, store: Store, signer: Signer, limits: Ceiling = NO_CEILING
) -> AsyncIterator[Engine]:
    """Run the engine."""
    planned, sealed = asyncio.Event(), asyncio.Event()
    async with connected(broker, "engine", *topics.uplink_filters()) as bus:
        conductor = Conductor(store, time.time, lambda: True, planned.set, limits)
        settings = RecorderSettings()
        recorder = Recorder(store, bus, settings, time.time, lambda: True, conductor.changed, planned.set)
        sealing = SealerSettings(DEPLOYMENT, ORIGIN, 3600.0, batch=BATCH)
        sealer = Sealer(store, lambda: Standing(1, signer), sealing, time.time, planned, sealed.set)
        dispatcher = Dispatcher(store, bus, BATCH, time.time, sealed, planned.set)
        parts = (conductor.run(), recorder.listen(), recorder.serve(), sealer.run(), dispatcher.run())
        loops = [asyncio.create_task(part) for part in parts]
        try:
            yield Engine(conductor, recorder, dispatcher, loops)
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


class Crowd:
    """Devices in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def leave(self) -> list[Came]:
        """Let all devices go; returns what they got, in order."""
        said, _ = await self._process.communicate(b"")
        return [Came(*item) for item in json.loads(said)]


@asynccontextmanager
async def crowd(broker: BrokerInfo, count: int, mode: str) -> AsyncIterator[Crowd]:
    """Connect devices `dev-000000` and so on, which do what the mode says; see `benchmarks.crowd`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.crowd", str(broker.port), str(count), mode),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 28,
    )
    try:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the devices did not connect")
        yield Crowd(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Watched:
    """A store that calls what is told each result of a writing transaction, as soon as it is known to be durable."""

    def __init__(self, store: Store, tell: Callable[[object], None]) -> None:
        self._store = store
        self._tell = tell

    async def transact(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        """See `ports.Store.transact`."""
        result = await self._store.transact(lane, work)
        self._tell(result)
        return result

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        """See `ports.Store.read`."""
        return await self._store.read(work)

    async def close(self) -> None:
        """See `ports.Store.close`."""
        await self._store.close()
