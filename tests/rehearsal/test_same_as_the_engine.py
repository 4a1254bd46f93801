"""What a rehearsal decides is what the daemon decides: its facts go through the real recorder, conductor and store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model import Deadlines, Delivery, Phase, Plan, Rollout, TallyKey
from orchestrator.core.rollout import Command
from orchestrator.core.update import FactKind
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.ports import Tx
from orchestrator.rehearsal.fleet import Fleet, Spread
from orchestrator.rehearsal.run import RUNS_PER_SEED, Run, Scenario, registry
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.clock import START_AT
from tests.support.factory import Plant, make_report, plant, stock

BEGINS_AT = START_AT + 60.0
"""When the link has been up for longer than the grace, so that the engine hears its devices."""
ROUNDING_S = 1e-4
"""More than the store rounds the times of an update by."""


@dataclass(frozen=True)
class Said:
    """A device said something."""

    at: float
    device_id: str
    kind: FactKind


@dataclass(frozen=True)
class Judged:
    """Silence was judged."""

    at: float


@dataclass(frozen=True)
class Decided:
    """The conductor looked; how the rollout stood then."""

    at: float
    standing: tuple[Any, ...]
    tallies: Counter[TallyKey]


class WatchedRun(Run):
    """A run that notes what happened in it, in order."""

    def __init__(self, scenario: Scenario, number: int) -> None:
        super().__init__(scenario, number)
        self.now = BEGINS_AT
        self.notes: list[Said | Judged | Decided] = []

    def say(self, number: int, kind: FactKind) -> None:
        self.notes.append(Said(self.now, self.ledger.update(number).device_id, kind))
        super().say(number, kind)

    def judge_silence(self) -> None:
        self.notes.append(Judged(self.now))
        super().judge_silence()

    def decide(self) -> None:
        super().decide()
        self.notes.append(Decided(self.now, standing(self.ledger.current), Counter(self.ledger.tallies)))


def standing(rollout: Rollout) -> tuple[Any, ...]:
    """Return what two rollouts that took the same decisions have in common."""
    reason = rollout.reason.code if rollout.phase is not Phase.RUNNING else ""
    return rollout.phase, rollout.stage, rollout.stages, rollout.cohort_size, rollout.strata, rollout.epoch, reason


class Replay:
    """The real engine, told what happened in a run."""

    def __init__(self, it: Plant, scenario: Scenario, number: int) -> None:
        self.it = it
        self.polls = scenario.plan.delivery is Delivery.POLL
        self.plan = replace(scenario.plan, seed=scenario.seed * RUNS_PER_SEED + number)
        self.fleet = scenario.fleet
        self.spoken: Counter[str] = Counter()

    async def start(self) -> None:
        devices = [NewDevice(item.id, item.model, (), item.version, item.rel) for item in registry(self.fleet)]

        def stocked(tx: Tx) -> None:
            operations.enrol(tx, devices, self.it.clock())
            stock(tx, 2, self.fleet.models)

        await self.it.write(stocked)
        self.rollout = await self.it.create(self.plan)
        await self.it.command(self.rollout, Command.START)

    async def say(self, said: Said) -> None:
        self.it.clock.at = said.at
        update = (await self.it.store.read(lambda tx: tx.updates_of([said.device_id])))[0]
        if self.polls and not self.spoken[said.device_id]:
            assert (await self.it.poll(update.device_id)).token
        self.spoken[said.device_id] += 1
        await self.it.record(make_report(update, Kind(said.kind.value), self.spoken[said.device_id]))

    async def judge_silence(self, judged: Judged) -> None:
        self.it.clock.at = judged.at + ROUNDING_S
        assert await self.it.recorder.judge_silence_once() > 0

    async def decide(self, decided: Decided) -> None:
        self.it.clock.at = decided.at
        self.rollout = await self.it.advance(self.rollout)
        await (self.it.seal() if self.polls else self.it.send())
        kept = await self.it.store.read(lambda tx: tx.tally(self.rollout.id))
        assert standing(self.rollout) == decided.standing
        assert Counter(kept) == decided.tallies


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path) as made:
        yield made


def quick(**changes: Any) -> Plan:
    """Return a plan whose stages are small enough for a real store."""
    return make_plan((5, 10, REST), soak_s=60.0, **changes)


SHORT = Deadlines(accept_s=200.0, download_s=150.0, install_s=80.0, confirm_s=60.0)
SCENES = {
    "a good build": (quick(), Fleet(40), Phase.DONE),
    "a bad build": (quick(), Fleet(40, bad_share=0.3), Phase.HALTED),
    "devices that never come back": (quick(), Fleet(40, bad_share=0.2, lost_share=1.0), Phase.HALTED),
    "devices that are away": (quick(deadlines=SHORT), Fleet(40, offline=0.3), Phase.HALTED),
    "too many devices that are away": (quick(), Fleet(40, offline=0.8), Phase.INCONCLUSIVE),
    "a bad build that is polled for": (quick(delivery=Delivery.POLL), Fleet(40, bad_share=0.4), Phase.HALTED),
    "a good build that is polled for": (quick(delivery=Delivery.POLL), Fleet(20), Phase.DONE),
    "liars, three models": (quick(), Fleet(40, strata=3, bad_share=0.5, liars=0.2), Phase.HALTED),
    "downloads that take too long": (quick(deadlines=SHORT), Fleet(20, download=Spread(100.0, 1.0)), Phase.HALTED),
    "one stage, many at once": (make_plan((REST,), in_flight=40), Fleet(40, bad_share=0.08), Phase.HALTED),
    "a failure in a small fleet": (make_plan((5, REST), (0.5, 0.1)), Fleet(12, bad_share=0.15), Phase.INCONCLUSIVE),
}


@pytest.mark.parametrize("name", SCENES)
async def test_the_engine_decides_the_same(it: Plant, name: str) -> None:
    plan, fleet, end = SCENES[name]
    scenario = Scenario(plan, fleet, seed=3)
    number = next(number for number in range(100) if _outcome(scenario, number) is end)
    run = WatchedRun(scenario, number)
    run.finish()
    replay = Replay(it, scenario, number)
    await replay.start()
    for note in run.notes:
        match note:
            case Said():
                await replay.say(note)
            case Judged():
                await replay.judge_silence(note)
            case Decided():
                await replay.decide(note)
    assert replay.rollout.phase is end
    await it.tallies_hold(replay.rollout)


def _outcome(scenario: Scenario, number: int) -> Phase:
    run = Run(scenario, number)
    run.finish()
    return run.outcome().phase
