"""A clock that is set while updates are on their way: nobody is judged by it, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from orchestrator.core.judging.outside import Outage
from orchestrator.core.model import EvidenceRule, Phase, Plan, Rollout, Update, UpdateState
from orchestrator.core.pace.requirement import Requirements
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.facts import Change
from orchestrator.engine.reports import jumps, outage
from orchestrator.engine.reports.hearing import Hearing
from orchestrator.engine.reports.jumps import JUMP_S, Jumps
from orchestrator.engine.targeting import facts
from orchestrator.engine.targeting.audience import audience_of, waiting
from orchestrator.errors import UnavailableError
from orchestrator.wire.report import Hello, Kind, State
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

    def wait(self, seconds: float) -> None:
        """Let time pass, and then as long as nothing is judged for."""
        self.it.clock.advance(seconds - GRACE_S)
        self.ticks.advance(seconds - GRACE_S)
        self.hearing()
        self.pass_by(GRACE_S)

    async def jump(self, by_s: float) -> None:
        """Set the clock, and see to what follows."""
        self.set_clock(by_s)
        assert not self.hearing()
        await self.jumps.settle()
        assert self.jumps.steady()

    async def begin(self, soak_s: float = 0.0) -> list[Update]:
        await self.it.enrol(12)
        await self.start(make_plan((4, REST), soak_s=soak_s))
        await self.it.send()
        return await self.updates()

    async def start(self, plan: Plan) -> Rollout:
        self.rollout = await self.it.create(plan)
        self.hearing()
        self.pass_by(GRACE_S)
        await self.it.command(self.rollout, Command.START)
        return await self.it.advance(self.rollout)

    async def cohort(self) -> dict[str, bool]:
        """Return who may still be taken in, and whether only by the last stage."""
        rollout = await self.it.rollout(self.rollout.id)
        audience = await self.it.store.read(lambda tx: audience_of(tx, rollout))
        return {item.device_id: item.late async for piece in waiting(self.it.store, audience) for item in piece}

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
    looks = asyncio.Semaphore(0)
    async with running(scene.jumps.run(_at(looks))):
        await until(looks.locked)
        scene.set_clock(DAY_S)
        scene.it.store.fails = 1
        looks.release()
        await until(lambda: not scene.it.store.fails)
        scene.pass_by(GRACE_S + 10.0)
        assert not scene.hearing()
        looks.release()
        await until(scene.jumps.steady)
    scene.pass_by(GRACE_S)
    assert scene.hearing()
    assert await scene.silence() == 0


@pytest.mark.parametrize("by_s", [2 * DAY_S, -2 * DAY_S])
async def test_who_waits_for_an_offer_waits_as_long_as_it_would_have(scene: Scene, by_s: float) -> None:
    await scene.it.enrol(4)
    await scene.it.record(hellos=[Hello(1, f"d{at:03}", "m1", "1.0.0", 1, "b1") for at in range(4)])
    rollout = await scene.start(replace(make_plan((REST,)), require=Requirements(battery_pct=50)))
    since = scene.it.clock()
    await scene.jump(by_s)
    assert [item.state_at for item in await scene.updates()] == [pytest.approx(since + by_s)] * 4
    scene.wait(rollout.plan.deadlines.accept_s - 60.0)
    await scene.it.advance(rollout)
    assert await scene.it.states(rollout) == {"pending": 4}
    scene.wait(60.0)
    await scene.it.advance(rollout)
    assert await scene.it.states(rollout) == {"unreached": 4}


@pytest.mark.parametrize("by_s", [400 * DAY_S, -400 * DAY_S])
async def test_offers_that_are_spread_come_in_their_time(scene: Scene, by_s: float) -> None:
    await scene.it.enrol(8)
    rollout = await scene.start(make_plan((REST,), jitter_s=600.0))
    await scene.jump(by_s)
    scene.pass_by(GRACE_S)
    await scene.it.advance(rollout)
    assert (await scene.it.states(rollout))["pending"] > 0, "the clock gives nobody an offer"
    scene.wait(600.0)
    await scene.it.advance(rollout)
    assert await scene.it.states(rollout) == {"offered": 8}


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S])
async def test_devices_of_a_rollout_that_is_over_are_not_judged_by_it(scene: Scene, by_s: float) -> None:
    updates = await scene.begin()
    for n, kind in enumerate((Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED)):
        await scene.it.say(updates, kind, n)
    await scene.it.command(scene.rollout, Command.ABORT)
    await scene.jump(by_s)
    scene.pass_by(GRACE_S)
    assert await scene.silence() == 0
    scene.wait(scene.rollout.plan.deadlines.confirm_s)
    assert await scene.silence() == 1
    assert await scene.it.states(scene.rollout) == {"lost": 4}


@pytest.mark.parametrize("by_s", [2 * DAY_S, -2 * DAY_S, 120.0, -120.0])
async def test_an_outage_goes_on_and_gives_back_its_own_time_alone(scene: Scene, by_s: float) -> None:
    updates = await scene.begin()
    await scene.it.say(updates[:2], Kind.ACCEPTED)
    scene.pass_by(100.0)
    await scene.it.write(lambda tx: tx.begin_outage(Outage(scene.it.clock(), 50, 0.5)))
    await scene.it.say(updates[2:3], Kind.ACCEPTED)
    left = {item.id: (item.deadline_at or 0.0) - scene.it.clock() for item in await scene.updates()}
    scene.pass_by(1000.0)
    await scene.jump(by_s)
    assert await scene.it.write(lambda tx: outage.lasts(tx, scene.it.clock()))
    scene.pass_by(1000.0)
    back = [State(1, "d011", online=True)]
    await scene.it.write(lambda tx: outage.watch(tx, back, scene.it.clock(), outage.STANDARD))
    assert not await scene.it.write(lambda tx: outage.lasts(tx, scene.it.clock()))
    after = {item.id: (item.deadline_at or 0.0) - scene.it.clock() for item in await scene.updates()}
    assert after == {number: pytest.approx(seconds, abs=0.01) for number, seconds in left.items()}


@pytest.mark.parametrize("by_s", [8 * DAY_S, -8 * DAY_S])
@pytest.mark.parametrize("open_cohort", [True, False])
async def test_who_registers_later_does_not_seem_to_have_come_before(
    scene: Scene, by_s: float, open_cohort: bool
) -> None:
    await scene.it.enrol(5, prefix="old")
    scene.wait(6 * DAY_S)
    await scene.it.enrol(5, prefix="fresh")
    scene.wait(2 * DAY_S)
    plan = make_plan((3, REST), (0.9, 0.9), open_cohort=open_cohort)
    await scene.start(replace(plan, evidence=EvidenceRule(registered_s=7 * DAY_S)))
    before = await scene.cohort()
    scene.pass_by(10.0)
    await scene.jump(by_s)
    await scene.it.enrol(5, prefix="new")
    late = {f"new{at:03}": True for at in range(5)} if open_cohort else {}
    assert await scene.cohort() == before | late
    await scene.jump(-by_s)
    assert await scene.cohort() == before | late


@pytest.mark.parametrize("by_s", [8 * DAY_S, -8 * DAY_S])
async def test_a_fixed_cohort_is_judged_by_the_same_facts(scene: Scene, by_s: float) -> None:
    await scene.it.enrol(6)

    async def move(device_id: str, site: str) -> None:
        await scene.it.write(lambda tx: facts.change(tx, {device_id: Change(site=site)}, scene.it.clock(), actor="ann"))
        scene.wait(DAY_S)

    await move("d000", "berlin")
    await move("d001", "berlin")
    rollout = await scene.start(make_plan((1, REST), select="site == berlin"))
    assert rollout.cohort_size == 2
    taken = (await scene.updates())[0].device_id
    other = next(name for name in ("d000", "d001") if name != taken)
    scene.pass_by(10.0)
    await move(other, "paris")
    await move("d002", "berlin")
    for _ in range(2):
        assert set(await scene.cohort()) == {other}
        await scene.jump(by_s)
    assert set(await scene.cohort()) == {other}


async def test_times_that_the_clock_had_not_reached_stay(scene: Scene) -> None:
    await scene.it.enrol(2)
    scene.rollout = await scene.it.create(make_plan((1, REST)))
    before = await scene.it.store.read(lambda tx: tx.devices("", 9))
    scene.it.clock.at = 0.0  # as on a machine without a clock of its own, before it asked for the time
    scene.jumps = Jumps(scene.it.store, scene.it.clock, scene.ticks)
    scene.set_clock(before[0].registered_at)
    await scene.jumps.settle()
    assert scene.jumps.last is not None
    assert await scene.it.store.read(lambda tx: tx.devices("", 9)) == before


async def test_it_goes_in_pieces_and_none_of_them_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jumps, "PIECE", 3)
    before = await scene.begin()
    scene.set_clock(DAY_S)
    for fails_after in (1, 2, 0):
        transact, left = scene.it.store.transact, [fails_after]

        async def away(*asked: object, transact: Callable[..., object] = transact, left: list[int] = left) -> object:
            if not left[0]:
                raise UnavailableError("away", code="store")
            left[0] -= 1
            return await transact(*asked)  # type: ignore[misc]

        with monkeypatch.context() as patched:
            patched.setattr(scene.it.store, "transact", away)
            with pytest.raises(UnavailableError):
                await scene.jumps.settle()
        assert not scene.jumps.steady()
        assert not scene.hearing()
    await scene.jumps.settle()
    assert scene.jumps.steady()
    moved = [item._replace(deadline_at=(item.deadline_at or 0.0) + DAY_S) for item in before]
    assert await scene.updates() == moved
    audited = await scene.it.store.read(lambda tx: tx.audit_entries(0, 99))
    assert [item.action for item in audited].count("clock.jumped") == 1


PIECES = 9
"""Transactions for twelve devices and four updates, three at once: of each the last finds no more."""


@pytest.mark.parametrize("stored", range(1, PIECES + 1))
async def test_a_death_between_two_pieces_leaves_nothing_half_moved(
    scene: Scene, stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumps, "PIECE", 3)
    by_s = DAY_S if stored % 2 else -DAY_S
    before, it = await scene.begin(), scene.it
    cohort_at = (await it.rollout(scene.rollout.id)).cohort_at or 0.0
    devices = await it.store.read(lambda tx: tx.devices("", 99))
    scene.pass_by(20.0)
    scene.set_clock(by_s)
    it.store.breaks = _dies_after(stored)
    with contextlib.suppress(_DeadError):
        await scene.jumps.settle()
    await it.restart()
    it.clock.advance(1.0)
    again = Scene(it)
    looks = asyncio.Semaphore(0)
    async with running(again.jumps.run(_at(looks))):
        await until(lambda: it.store.transactions == PIECES - stored)
        await until(again.jumps.steady)
        assert it.store.transactions == PIECES - stored, "what was moved is not moved twice"
    moved = [item._replace(deadline_at=(item.deadline_at or 0.0) + by_s) for item in before]
    assert await it.updates(scene.rollout) == moved
    registered = [item.registered_at for item in await it.store.read(lambda tx: tx.devices("", 99))]
    assert registered == [item.registered_at + by_s for item in devices]
    assert (await it.rollout(scene.rollout.id)).cohort_at == cohort_at + by_s
    audited = await it.store.read(lambda tx: tx.audit_entries(0, 99))
    assert [item.action for item in audited].count("clock.jumped") == 1
    assert await it.store.read(lambda tx: tx.unfinished_jump()) is None


async def test_nothing_is_judged_before_an_unfinished_jump_has_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumps, "PIECE", 3)
    await scene.begin()
    scene.set_clock(400 * DAY_S)
    scene.it.store.breaks = _dies_after(2)
    with pytest.raises(_DeadError):
        await scene.jumps.settle()
    await scene.it.restart()
    again = Scene(scene.it)
    again.rollout = scene.rollout
    with capture_logs() as logs:
        await again.jumps.resume()
    assert [item["event"] for item in logs] == ["clock.jump_resumed"]
    assert not again.jumps.steady()
    again.pass_by(GRACE_S + 10.0)
    assert not again.hearing()
    assert await again.silence() == 0
    await again.jumps.settle()
    again.pass_by(GRACE_S + 2.0)
    assert again.hearing()
    assert await again.silence() == 0
    assert await again.it.states(again.rollout) == {"offered": 4}


@pytest.mark.parametrize("by_s", [7200.0, -7200.0])
async def test_the_hour_of_the_blast_ceiling_goes_on(scene: Scene, by_s: float) -> None:
    await scene.begin()
    at = scene.it.clock()
    (before,) = (await scene.it.store.read(lambda tx: tx.offers())).items()
    scene.pass_by(120.0)
    await scene.jump(by_s)
    assert await scene.it.store.read(lambda tx: tx.offers()) == {int((at + by_s) // 60): before[1]}


async def test_it_knows_for_how_long_there_was_none(scene: Scene) -> None:
    assert scene.jumps.calm_s() == float("inf")
    scene.set_clock(DAY_S)
    assert scene.jumps.calm_s() == 0.0, "who asks first notices it"
    scene.pass_by(100.0)
    assert scene.jumps.calm_s() == 100.0


class _DeadError(Exception):
    """The process is dead."""


def _dies_after(transactions: int) -> Callable[[], None]:
    """Return what lets so many transactions be, and none after them."""
    left = iter([True] * transactions)

    def breaks() -> None:
        if not next(left, False):
            raise _DeadError

    return breaks


def _at(looks: asyncio.Semaphore) -> Callable[[float], object]:
    return lambda _: looks.acquire()
