"""Starting a rollout on a large fleet: how long a report waits for its commit before and meanwhile.

Reports of a smaller rollout come at a steady rate while the cohort is counted, its first stage of a tenth is cut and
taken in, and the first devices are offered the release. `python -m benchmarks.start DEVICES` for another fleet.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.field import Field, add_release, enrol, prepare, unplugged
from benchmarks.times import percentile, told_ms
from orchestrator.core.judging import evidence
from orchestrator.core.model import Phase, Plan, SizeKind, StagePlan
from orchestrator.core.rollout import Command
from orchestrator.daemon import tune_interpreter
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.ports import Lane, Tx
from orchestrator.wire.report import Kind, Report

DEVICES = 1_000_000
REPORTING = 5000
RATE = 300
"""Reports a second."""
QUIET_S = 5.0
MOST_S = 0.250
TENTH = 100_000
PLAN = Plan("large", "large", (StagePlan(SizeKind.PPM, TENTH), StagePlan(SizeKind.REST, 0)), in_flight=1000)


class Found(NamedTuple):
    """What one start did.

    Attributes:
        quiet: how long reports waited before it, in seconds.
        meanwhile: how long they waited until the first stage was taken in and offered.
        counted_s: from the start to the known cohort.
        opened_s: from the start to the first offer.
    """

    quiet: Sequence[float]
    meanwhile: Sequence[float]
    counted_s: float
    opened_s: float


async def run(directory: Path, devices: int) -> None:
    """Print the figures."""
    found = await measure(directory, devices)
    print(
        f"starting on {devices:,} devices: counted after {found.counted_s:.1f} s, a tenth taken in after "
        f"{found.opened_s:.1f} s; report to commit before: {told_ms(found.quiet)}; "
        f"meanwhile: {told_ms(found.meanwhile)}; p99 at most {1000 * MOST_S:.0f} ms: "
        f"ratio {percentile(found.meanwhile, 0.99) / MOST_S:.2f}"
    )


async def measure(directory: Path, devices: int) -> Found:
    """Start a rollout on a fleet while reports come."""
    field = await prepare(directory, REPORTING, "")
    await enrol(field.store, devices, "large", "large")
    await field.store.transact(Lane.BULK, lambda tx: add_release(tx, "large", ""))
    bus, planned = unplugged(), asyncio.Event()
    conductor = Conductor(field.store, time.time, lambda: True, planned.set)
    recorder = Recorder(field.store, bus, RecorderSettings(), time.time, lambda: True, conductor.changed)
    loops = [asyncio.create_task(conductor.run()), asyncio.create_task(recorder.serve())]
    try:
        return await _start(field, conductor, recorder, loops)
    finally:
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await field.store.close()


async def _start(field: Field, conductor: Conductor, recorder: Recorder, loops: Sequence[asyncio.Task[None]]) -> Found:
    waits: list[float] = []
    talk = asyncio.create_task(_talk(field, recorder, waits))
    await asyncio.sleep(QUIET_S)
    quiet, waits[:] = list(waits), []
    rollout = await field.store.transact(
        Lane.OPERATOR, lambda tx: operations.create_rollout(tx, PLAN, "bench", time.time())
    )
    begun = time.perf_counter()
    await conductor.command("large", Command.START, actor="bench", reason="")
    counted_s = 0.0
    while True:
        await asyncio.sleep(0.05)
        for task in (*loops, talk):
            if task.done():
                task.result()
        phase, in_flight = await field.store.read(partial(_standing, rollout_id=rollout.id))
        if phase is Phase.RUNNING and not counted_s:
            counted_s = time.perf_counter() - begun
        if in_flight:
            break
    opened_s = time.perf_counter() - begun
    talk.cancel()
    return Found(quiet, list(waits), counted_s, opened_s)


def _standing(tx: Tx, rollout_id: int) -> tuple[Phase, int]:
    rollout = tx.rollout(rollout_id)
    assert rollout is not None
    return rollout.phase, evidence.in_flight(tx.tally(rollout_id))


async def _talk(field: Field, recorder: Recorder, waits: list[float]) -> None:
    """Let devices report one after the other, whether or not the reports before were committed."""
    attempts = list(field.attempts.items())
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        number = 0
        while True:
            device, attempt = attempts[number % len(attempts)]
            report = Report(v=1, dev=device, att=attempt, boot="bench", n=number, kind=Kind.PROGRESS, pct=number % 100)
            due = begun + number / RATE
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            tasks.create_task(_say(recorder, report, due, waits))
            number += 1


async def _say(recorder: Recorder, report: Report, due: float, waits: list[float]) -> None:
    await recorder.submit(report)
    waits.append(time.perf_counter() - due)


def main() -> None:
    """Measure with as many devices as the command line says."""
    tune_interpreter()
    devices = int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES
    with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
        asyncio.run(run(Path(folder), devices))


if __name__ == "__main__":
    main()
