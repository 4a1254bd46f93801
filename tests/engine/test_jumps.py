"""A clock that is set while updates are on their way: nobody is judged by it, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from orchestrator.core.model import Phase, Rollout, Update, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.reports.hearing import Hearing
from orchestrator.engine.reports.jumps import JUMP_S, Jumps
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.clock import Clock, running, until
from tests.support.factory import Plant

S = UpdateState
DAY_S = 86_400.0
GRACE_S = 30.0


class Scene:
    """A rollout with devices on their way, and a clock besides that nobody sets."""

    def __init__(self, it: Plant) -> None:
        self.it, self.ticks = it, Clock(5.0)
        self.jumps = Jumps(it.store, it.clock, self.ticks)
        self.hearing = Hearing(lambda: 1, GRACE_S, it.clock, self.ticks, self.jumps.steady)
        it.recorder._hearing = it.conductor._hearing = self.hearing
        self.rollout: Rollout

    def pass_by(self, seconds: float) -> None:
        """Let time pass, while somebody asks now and then."""
        for _ in range(int(seconds // 2.0)):
            self.it.clock.advance(2.0)
            self.ticks.advance(2.0)
            self.hearing()

    def set_clock(self, by_s: float) -> None:
        self.it.clock.advance(by_s)

    async def begin(self, soak_s: float = 0.0) -> list[Update]:
        await self.it.enrol(12)
        self.rollout = await self.it.create(make_plan((4, REST), soak_s=soak_s))
        self.hearing()
        self.pass_by(GRACE_S)
        await self.it.command(self.rollout, Command.START)
        await self.it.advance(self.rollout)
        await self.it.send()
        return await self.updates()

    async def updates(self) -> list[Update]:
        return await self.it.updates(self.rollout)

    async def silence(self) -> int:
        return await self.it.recorder.judge_silence_once()


@pytest.fixture
def scene(it: Plant) -> Scene:
    return Scene(it)


@pytest.mark.parametrize("by_s", [DAY_S, 400 * DAY_S, -DAY_S, -400 * DAY_S, 60.0, -60.0])
async def test_deadlines_pass_when_their_time_has_passed_and_not_before(scene: Scene, by_s: float) -> None:
    before = await scene.begin()
    assert {item.state for item in before} == {S.OFFERED}
    await scene.it.say(before[:2], Kind.ACCEPTED)
    before = await scene.updates()
    scene.pass_by(20.0)
    scene.set_clock(by_s)
    with capture_logs() as logs:
        assert not scene.hearing(), "it is noticed by whoever asks first"
        assert await scene.silence() == 0
        await scene.jumps.settle()
    assert [item["event"] for item in logs] == ["clock.jumped"]
    after = await scene.updates()
    expected = [pytest.approx((item.deadline_at or 0.0) + by_s) for item in before]
    assert [item.deadline_at for item in after] == expected
    assert scene.jumps.last is not None
    assert scene.jumps.last.by_s == pytest.approx(by_s)
    audited = await scene.it.store.read(lambda tx: tx.audit_entries(0, 99))
    assert (audited[-1].action, audited[-1].actor) == ("clock.jumped", "orchestrator")
    scene.pass_by(GRACE_S)
    assert scene.hearing()
    assert await scene.silence() == 0
    longest_s = max(item.deadline_at or 0.0 for item in after) - scene.it.clock()
    scene.ticks.advance(longest_s + 1.0)
    scene.it.clock.advance(longest_s + 1.0)
    scene.hearing()
    scene.pass_by(GRACE_S)
    assert await scene.silence() == 1
    assert {item.state for item in await scene.updates()} == {S.UNREACHED, S.EXPIRED}


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S])
async def test_what_was_said_after_the_jump_keeps_its_deadline(scene: Scene, by_s: float) -> None:
    updates = await scene.begin()
    scene.set_clock(by_s)
    assert not scene.hearing()
    scene.pass_by(1.0)
    await scene.it.say(updates[:1], Kind.ACCEPTED)
    said = next(item for item in await scene.updates() if item.state is S.ACCEPTED)
    await scene.jumps.settle()
    assert next(item for item in await scene.updates() if item.id == said.id) == said


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S])
async def test_a_stage_soaks_as_long_as_it_would_have(scene: Scene, by_s: float) -> None:
    updates = await scene.begin(soak_s=600.0)
    await scene.it.confirm(updates)
    assert (await scene.it.advance(scene.rollout)).current.resolved_at == scene.it.clock()
    scene.pass_by(100.0)
    scene.set_clock(by_s)
    scene.hearing()
    await scene.jumps.settle()
    scene.pass_by(498.0)
    found = await scene.it.advance(scene.rollout)
    assert (found.stage, found.phase) == (0, Phase.RUNNING)
    assert found.moved_at <= scene.it.clock()
    scene.pass_by(2.0)
    assert (await scene.it.advance(scene.rollout)).stage == 1


async def test_two_jumps_that_undo_each_other_change_nothing(scene: Scene) -> None:
    before = await scene.begin()
    scene.pass_by(20.0)
    for by_s in (3600.0, -3600.0):
        scene.set_clock(by_s)
        scene.hearing()
    await scene.jumps.settle()
    assert await scene.updates() == before
    assert scene.jumps.steady()


async def test_a_clock_that_is_slewed_or_a_process_that_stood_still_is_no_jump(scene: Scene) -> None:
    await scene.begin()
    for drift_s in (JUMP_S, -JUMP_S):
        scene.it.clock.advance(drift_s)
        assert scene.jumps.steady()
    scene.it.clock.advance(DAY_S)
    scene.ticks.advance(DAY_S)
    assert scene.jumps.steady()
    assert scene.jumps.last is None


async def test_nothing_is_judged_until_a_store_that_is_away_took_it(scene: Scene) -> None:
    await scene.begin()
    scene.set_clock(DAY_S)
    looks = asyncio.Semaphore(1)
    scene.it.store.fails = 1
    async with running(scene.jumps.run(_at(looks))):
        await until(lambda: not scene.it.store.fails)
        scene.pass_by(GRACE_S + 10.0)
        assert not scene.hearing()
        looks.release()
        await until(scene.jumps.steady)
    scene.pass_by(GRACE_S)
    assert scene.hearing()
    assert await scene.silence() == 0


def _at(looks: asyncio.Semaphore) -> Callable[[float], object]:
    return lambda _: looks.acquire()
