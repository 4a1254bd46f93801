"""Long work beside the conductor's loop: every rollout is judged meanwhile, and what is not wanted any more ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.model import Phase, Stage, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting import cohort
from orchestrator.engine.rollouts.conductor import is_wanted, note_exhausted, open_piece
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_device, make_plan, make_rollout
from tests.support.clock import running
from tests.support.factory import Plant, stock

S, C = UpdateState, Command


class Gate:
    """Holds back the bulk work of a store until it is opened."""

    def __init__(self, it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = asyncio.Event()
        self.waiting = asyncio.Event()
        transact = it.store.transact

        async def held(lane: Lane, work: Callable[[Any], Any]) -> Any:
            if lane is Lane.BULK:
                self.waiting.set()
                await self.opened.wait()
            return await transact(lane, work)

        monkeypatch.setattr(it.store, "transact", held)


async def phase_is(it: Plant, rollout_id: int, phase: Phase) -> None:
    async with asyncio.timeout(30):
        while (await it.rollout(rollout_id)).phase is not phase:
            await asyncio.sleep(0.001)


async def test_another_rollout_is_halted_while_a_stage_is_taken_in(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.enrol(20)
    first = await it.running(make_plan((REST,)))
    await it.enrol(20, "m2", "x")
    await it.send()
    await it.write(lambda tx: stock(tx, 3, ("m2",)))
    second = await it.create(make_plan((REST,), name="large", release="radio-3.0.0"))
    gate = Gate(it, monkeypatch)
    async with running(it.conductor.run()):
        await it.command(second, C.START)
        async with asyncio.timeout(30):
            await gate.waiting.wait()
        await it.say((await it.updates(first, S.OFFERED))[:5], Kind.FAILED)
        it.conductor.changed({first.id})
        await phase_is(it, first.id, Phase.HALTED)
        assert await it.updates(second) == []
        gate.opened.set()
        async with asyncio.timeout(30):
            while not await it.updates(second, S.OFFERED):
                await asyncio.sleep(0.001)


async def test_work_ends_when_its_rollout_is_paused_and_begins_anew(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.enrol(6)
    rollout = await it.create(make_plan((REST,)))
    it.clock.advance(30)
    gate = Gate(it, monkeypatch)
    async with running(it.conductor.run()):
        await it.command(rollout, C.START)
        async with asyncio.timeout(30):
            await gate.waiting.wait()
        work = it.conductor._works[rollout.id].task
        await it.command(rollout, C.PAUSE)
        async with asyncio.timeout(30):
            await asyncio.wait([work])
        assert work.cancelled()
        assert it.conductor._works == {}
        gate.opened.set()
        await it.command(rollout, C.RESUME)
        async with asyncio.timeout(30):
            while len(await it.updates(rollout, S.OFFERED)) < 6:
                await asyncio.sleep(0.001)
    await it.tallies_hold(rollout)


async def test_a_store_that_is_away_puts_work_off(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.enrol(2)
    rollout = await it.create(make_plan((REST,)))
    it.clock.advance(30)
    transact, left = it.store.transact, [1]

    async def breaks_once(lane: Lane, work: Callable[[Any], Any]) -> Any:
        if lane is Lane.BULK and left:
            left.clear()
            raise UnavailableError("away", code="store")
        return await transact(lane, work)

    monkeypatch.setattr(it.store, "transact", breaks_once)
    async with running(it.conductor.run()):
        await it.command(rollout, C.START)
        async with asyncio.timeout(30):
            while not await it.updates(rollout, S.OFFERED):
                it.clock.advance(1)
                it.conductor.changed(set())
                await asyncio.sleep(0.001)
    assert not left


async def test_a_piece_that_comes_too_late_changes_nothing(it: Plant) -> None:
    await it.enrol(6)
    before = await it.running(make_plan((3, REST)))
    members = list(cohort.members(b"x", [make_device(f"d{at:03}") for at in range(6)]))
    await it.command(before, C.PAUSE)
    after = await it.command(before, C.RESUME)
    kept = await it.states(before)
    await it.write(lambda tx: open_piece(tx, before, members, it.clock()))
    await it.write(lambda tx: note_exhausted(tx, replace(before, stage=1), 0, it.clock()))
    assert await it.states(before) == kept
    assert (await it.rollout(before.id)).stages == after.stages


def test_work_is_wanted_while_its_stage_goes_on() -> None:
    rollout = make_rollout(stages=(Stage(5, 5), Stage(5, 5)))
    assert is_wanted(rollout, replace(rollout, moved_at=9.0))
    assert not is_wanted(rollout, replace(rollout, version=rollout.version + 1))
    assert not is_wanted(rollout, replace(rollout, stage=1))
    assert not is_wanted(rollout, replace(rollout, cohort_at=9.0))
    assert not is_wanted(rollout, replace(rollout, stages=(Stage(5, 5, hurried=True), Stage(5, 5))))
    last = replace(rollout, stages=(Stage(5, 5), Stage(5, 5, hurried=True)), stage=1)
    assert is_wanted(last, last)


async def test_many_offers_are_made_in_steps(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engine.rollouts.conductor.OFFERS", 4)
    await it.enrol(10)
    rollout = await it.create(make_plan((REST,)))
    await it.command(rollout, C.START)
    it.clock.advance(30)
    it.store.transactions = 0
    await it.advance(rollout)
    assert await it.states(rollout) == {"offered": 10}
    # Counting, taking in, three offers, and the looks before and after them.
    assert it.store.transactions == 1 + 1 + 1 + 1 + 3 + 1
