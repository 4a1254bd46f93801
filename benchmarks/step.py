"""What one step of a rollout costs in a small fleet and in a large one: decisions read tallies, never the fleet.

Each device is really there, taken into the rollout in one of three stages. A step follows the confirmation of one
device: it folds the tallies, judges, and offers the release to the next device. The two fleets take turns, so that
what else the machine does meets both. A halt takes back what is in flight.

`python -m benchmarks.step DEVICES` for another large fleet.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from benchmarks.field import ENROLLED, SECRET, add_release, enrol, made
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.core import rollout as machine
from orchestrator.core import update as update_machine
from orchestrator.core.model import Phase, Plan, Reason, Rollout, SizeKind, Stage, StagePlan, UpdateState
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.rollout import Command
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.cohort import Member
from orchestrator.core.update import Fact, FactKind
from orchestrator.daemon import tune_interpreter
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.reports.recording import Batch, record
from orchestrator.engine.rollouts import effects
from orchestrator.engine.rollouts.conductor import take_step
from orchestrator.ports import Lane, Tx
from orchestrator.wire.report import Kind, Report

SMALL, LARGE = 1000, 1_000_000
STEPS, HALTS = 200, 20
IN_FLIGHT = 50
LAST = 2
MOST = 1.5
MOST_HALT_S = 1.0
_NO_CEILING = Ceiling(share=1.0)


class Costs(NamedTuple):
    """Median costs in a fleet of one size, in seconds.

    Attributes:
        step_s: a step that offers the release to the next device.
        halt_s: a halt that takes back what is in flight.
    """

    step_s: float
    halt_s: float


async def run(directory: Path, large: int) -> None:
    """Print the figures."""
    small, big = await measure(directory, SMALL, large)
    print(
        f"a step {1000 * small.step_s:.2f} ms with {SMALL:,} devices, {1000 * big.step_s:.2f} ms with {large:,}; "
        f"at most {MOST} times: ratio {big.step_s / small.step_s:.2f}"
    )
    print(
        f"a halt {1000 * small.halt_s:.0f} ms with {SMALL:,} devices, {1000 * big.halt_s:.0f} ms with {large:,}; "
        f"at most {1000 * MOST_HALT_S:.0f} ms: ratio {big.halt_s / MOST_HALT_S:.2f}"
    )


async def measure(directory: Path, *sizes: int) -> list[Costs]:
    """Return what a step and a halt cost in a fleet of each size."""
    stores = [await _prepare(directory / f"{size}", size) for size in sizes]
    steps: list[list[float]] = [[] for _ in sizes]
    halts: list[list[float]] = [[] for _ in sizes]
    for number in range(STEPS):
        for place, store in enumerate(stores):
            await store.transact(Lane.REPORTS, partial(_confirm, number=number, first=2 * (sizes[place] // 10) + 1))
            steps[place].append(await _timed(store, _step))
    for _ in range(HALTS):
        for place, store in enumerate(stores):
            halts[place].append(await _timed(store, partial(_command, command=Command.HALT)))
            await store.transact(Lane.OPERATOR, partial(_command, command=Command.RESUME))
            await store.transact(Lane.REPORTS, _recalled)
            await _settle(store)
    for store in stores:
        await store.close()
    return [Costs(statistics.median(step), statistics.median(halt)) for step, halt in zip(steps, halts, strict=True)]


async def _timed(store: SqlStore, work: Callable[[Tx], object]) -> float:
    begun = time.perf_counter()
    await store.transact(Lane.OPERATOR, work)
    return time.perf_counter() - begun


async def _prepare(directory: Path, devices: int) -> SqlStore:
    """Return a store whose last stage has been taken in; a tenth of the devices is in each of the stages before."""
    directory.mkdir()
    store = await asyncio.to_thread(open_store, f"sqlite:///{directory / 'bench.db'}")
    await enrol(store, devices, "bench", "dev")
    plan = Plan("bench", "bench", tuple(StagePlan(SizeKind.COUNT, 1) for _ in range(3)), in_flight=IN_FLIGHT)
    tenth = devices // 10
    stages = tuple(Stage(size, size) for size in (tenth, tenth, devices - 2 * tenth))
    draft = Rollout(0, plan, Phase.RUNNING, Reason("", ""), "bench", 0.0, 1, LAST, stages, devices)
    rollout = await store.transact(Lane.BULK, partial(_add, draft=draft))
    members = sorted(cohort.members(SECRET, made(devices, "bench", "dev")))
    for index, first in enumerate((0, tenth, 2 * tenth)):
        staged = iter(members[first : first + stages[index].target])
        while piece := list(islice(staged, ENROLLED)):
            await store.transact(Lane.BULK, partial(_open, rollout=replace(rollout, stage=index), members=piece))
    await _settle(store)
    return store


async def _settle(store: SqlStore) -> None:
    while await store.transact(Lane.OPERATOR, _step):
        pass


def _add(tx: Tx, draft: Rollout) -> Rollout:
    add_release(tx, "bench", "")
    return tx.add_rollout(draft, SECRET)


def _open(tx: Tx, rollout: Rollout, members: Sequence[Member]) -> None:
    """Take members into a stage; those of the stages before the last one have confirmed."""
    opened = tx.open_updates(rollout, members, 2, 0.0)
    if rollout.stage < LAST:
        opened = [item._replace(state=UpdateState.CONFIRMED) for item in opened]
        tx.save_updates(opened, ())
    tx.change_tallies(rollout.id, update_machine.tally_changes((), opened))


def _confirm(tx: Tx, number: int, first: int) -> None:
    """Let the device confirm that was offered the release longest ago: they are offered it in the order of numbers."""
    update = tx.updates([first + number])[first + number]
    att = f"{update.id}.{update.attempt}"
    said = Report(v=1, dev=update.device_id, att=att, boot="bench", n=number, kind=Kind.CONFIRMED, ver="2", rel=2)
    record(tx, Batch([said], [], []), time.time(), enrol=False)


def _step(tx: Tx) -> bool:
    return take_step(tx, 1, time.time(), hearing=True, limits=_NO_CEILING)[2]


def _command(tx: Tx, command: Command) -> None:
    """Do what a person's command does in the daemon."""
    rollout = tx.rollout(1)
    assert rollout is not None
    decision = machine.operate(rollout, tx.tally(1), command, actor="bench", reason="measured", now=time.time())
    tx.save_rollout(decision.rollout, None)
    for effect in decision.effects:
        effects.carry_out(tx, decision.rollout, effect, time.time(), _NO_CEILING)


def _recalled(tx: Tx) -> None:
    """Let the devices that were recalled say so."""
    recalled = tx.updates_in(1, (UpdateState.RECALLING,))
    fold(tx, [(item, Fact(FactKind.RECALLED, item.attempt)) for item in recalled], time.time(), Recorded())


def main() -> None:
    """Measure with as many devices as the command line says."""
    tune_interpreter()
    devices = int(sys.argv[1]) if len(sys.argv) > 1 else LARGE
    with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
        asyncio.run(run(Path(folder), devices))


if __name__ == "__main__":
    main()
