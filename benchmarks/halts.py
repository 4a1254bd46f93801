"""How fast evidence stops a rollout: from the commit of the report that decides it to the commit of the halt, and to
the last trigger that the broker gave to a device.

5,000 connected devices report all the time; each round resumes the rollout, and while its triggers are on their way
one device fails, which is one too many. `python -m benchmarks.halts HALTS DEVICES` for other numbers.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from bisect import bisect_left
from functools import partial
from pathlib import Path

from benchmarks.engine import Came, Engine, Watched, crowd, running
from benchmarks.field import SECRET, add_release, enrol, made, statement
from benchmarks.times import percentile, told_ms
from orchestrator.adapters.keys import create_keys
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.store import open_store
from orchestrator.core import update as update_machine
from orchestrator.core.model import (
    HaltRule,
    Phase,
    Plan,
    Reason,
    Rollout,
    SizeKind,
    Stage,
    StagePlan,
    Update,
    UpdateState,
)
from orchestrator.core.rollout import Command, Decision
from orchestrator.core.targeting import cohort
from orchestrator.daemon import tune_interpreter
from orchestrator.demo.broker import BrokerInfo, broker
from orchestrator.ports import Lane, Store, Tx
from orchestrator.wire.report import Kind, Report

HALTS, DEVICES = 200, 5000
IN_FLIGHT = 200
UNDER_WAY = 50
"""Triggers that have gone out when the device fails."""
QUIET_S = 0.2
"""How long after the halt no trigger may come before the next round."""
MOST_S = 1.0
PLAN = Plan("bench", "bench", (StagePlan(SizeKind.REST, 0),), in_flight=IN_FLIGHT, halt=HaltRule(max_failures=1))


class _Rounds:
    """The times of the rounds.

    Attributes:
        decided: when each deciding report was committed.
        halted: when each halt was committed.
    """

    def __init__(self) -> None:
        self.decided: list[float] = []
        self.halted: list[float] = []

    def note(self, result: object) -> None:
        """Note the halt, if a transaction was one."""
        match result:
            case (Rollout(phase=Phase.RUNNING), Decision(rollout=Rollout(phase=Phase.HALTED)), bool()):
                self.halted.append(time.monotonic())


async def run(info: BrokerInfo, directory: Path, halts: int, devices: int) -> None:
    """Print the figures."""
    rounds = _Rounds()
    keys = directory / "keys"
    create_keys(keys, "bench")
    store = await asyncio.to_thread(open_store, f"sqlite:///{directory / 'bench.db'}")
    await enrol(store, devices, "bench", "dev")
    await store.transact(Lane.BULK, partial(_fill, devices=devices, statement=statement(keys)))
    watched = Watched(store, rounds.note)
    async with crowd(info, devices, "dwell") as they:
        async with running(info, watched, FileSigner.load(keys / "trigger.pem")) as engine:
            for number in range(halts):
                await _halt(engine, store, rounds, number)
        came = await they.leave()
    await store.close()
    commits = [halted - decided for decided, halted in zip(rounds.decided, rounds.halted, strict=True)]
    last = _last_triggers(rounds, came)
    print(
        f"{halts} halts with {devices:,} devices: from the deciding report's commit to the halt's: {told_ms(commits)}; "
        f"to the last trigger at a device: {told_ms(last)}; p99 at most {1000 * MOST_S:.0f} ms: "
        f"ratio {max(percentile(commits, 0.99), percentile(last, 0.99)) / MOST_S:.2f}"
    )


def _fill(tx: Tx, devices: int, statement: str) -> None:
    """Take all devices in; so many have confirmed that the others may be offered the release together."""
    add_release(tx, "bench", statement)
    stages = (Stage(devices, devices),)
    draft = Rollout(0, PLAN, Phase.PAUSED, Reason("", ""), "bench", 0.0, stages=stages, cohort_size=devices)
    rollout = tx.add_rollout(draft, SECRET)
    members = sorted(cohort.members(SECRET, made(devices, "bench", "dev")))
    opened = tx.open_updates(rollout, members, 2, time.time())
    confirmed = [item._replace(state=UpdateState.CONFIRMED) for item in opened[:IN_FLIGHT]]
    tx.save_updates(confirmed, ())
    tx.change_tallies(rollout.id, update_machine.tally_changes((), [*confirmed, *opened[IN_FLIGHT:]]))


async def _halt(engine: Engine, store: Store, rounds: _Rounds, number: int) -> None:
    """Resume the rollout, and let a device fail while the triggers go out."""
    before = engine.dispatcher.published
    await engine.conductor.command("bench", Command.RESUME, actor="bench", reason="the next round")
    await engine.until(lambda: engine.dispatcher.published >= before + UNDER_WAY)
    while not (reached := await store.read(_reached)):
        await asyncio.sleep(0.005)
    failing = reached[0]
    report = Report(
        v=1,
        dev=failing.device_id,
        att=f"{failing.id}.{failing.attempt}",
        boot="bench",
        n=number,
        kind=Kind.FAILED,
        code="broken",
    )
    await engine.recorder.submit(report)
    rounds.decided.append(time.monotonic())
    await engine.until(lambda: len(rounds.halted) == len(rounds.decided))
    published = -1
    while engine.dispatcher.published != published:
        published = engine.dispatcher.published
        await asyncio.sleep(QUIET_S)


def _reached(tx: Tx) -> list[Update]:
    return tx.updates_in(1, (UpdateState.ACCEPTED,))


def _last_triggers(rounds: _Rounds, came: list[Came]) -> list[float]:
    """Return for each round how long after the decision the last trigger came; 0 if none came after it."""
    installs = sorted(item.at for item in came if item.act == "install")
    found = []
    for decided, halted in zip(rounds.decided, rounds.halted, strict=True):
        last = installs[max(bisect_left(installs, halted + QUIET_S) - 1, 0)]
        found.append(max(last - decided, 0.0))
    return found


async def _main(halts: int, devices: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
        async with broker(users=None, directory=Path(folder) / "broker") as info:
            await run(info, Path(folder), halts, devices)


def main() -> None:
    """Measure as often as the command line says."""
    tune_interpreter()
    numbers = [int(word) for word in sys.argv[1:3]]
    halts, devices = (*numbers, *(HALTS, DEVICES)[len(numbers) :])
    asyncio.run(_main(halts, devices))


if __name__ == "__main__":
    main()
