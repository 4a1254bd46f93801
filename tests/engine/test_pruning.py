"""What is forgotten and what never is, on a real store."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

from orchestrator.core.model import Phase, Rollout, Update, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.facts import Change
from orchestrator.engine.insight.explain import explain_rollout
from orchestrator.engine.reports.jumps import Jumps
from orchestrator.engine.rollouts.pruning import CALM_S, PIECE, Pruner
from orchestrator.engine.targeting import facts
from orchestrator.ports import Tx
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.clock import Clock, running, until
from tests.support.factory import Plant, make_report

S = UpdateState
DAY_S = 86_400.0
KEEP_S = 90 * DAY_S


def pruner(it: Plant) -> Pruner:
    return Pruner(it.store, KEEP_S, it.clock, lambda: CALM_S)


async def done(it: Plant, name: str = "spring", rel: int = 2) -> tuple[Rollout, list[Update]]:
    """Return a rollout that all its devices took, and their updates."""
    rollout = await it.running(make_plan((REST,), name=name, release=f"radio-{rel}.0.0"), rel=rel)
    while (rollout := await it.advance(rollout)).phase is not Phase.DONE:
        await it.send()
        offered = await it.updates(rollout, S.OFFERED)
        await it.say(offered, Kind.ACCEPTED)
        await it.confirm(offered)
    return rollout, await it.updates(rollout)


async def last_ones(it: Plant, *rollouts: Rollout) -> set[int]:
    """Return the updates that stay for their numbers: the last one, and whoever got the last sequence number."""
    parcels = [item for rollout in rollouts for item in await it.parcels(rollout)]
    last = max(parcels, key=lambda item: item.seq or 0)
    return {last.update_id, max(item.update_id for item in parcels)}


def kept(tx: Tx, update: Update) -> tuple[int, int, int]:
    """Return how many updates, deliveries and reports are left."""
    return len(tx.updates([update.id])), len(tx.parcels(update.id)), len(tx.lines(update.id))


async def left(it: Plant, update: Update) -> tuple[int, int, int]:
    return await it.store.read(lambda tx: kept(tx, update))


async def test_what_is_long_over_goes_and_its_figures_stay(it: Plant) -> None:
    await it.enrol(20)
    old, updates = await done(it)
    before = await it.store.read(lambda tx: tx.tally(old.id))
    it.clock.advance(KEEP_S)
    assert await pruner(it).prune() == 0, "not a moment sooner"
    it.clock.advance(1.0)
    last = await last_ones(it, old)
    assert await pruner(it).prune() == 20 - len(last)
    for item in updates:
        assert await left(it, item) == ((1, 1, 2) if item.id in last else (0, 0, 0))
    assert await it.store.read(lambda tx: tx.tally(old.id)) == before
    view = await it.store.read(lambda tx: explain_rollout(tx, old.plan.name, it.clock(), hearing=True))
    assert view["phase"] == "done"
    assert await it.store.read(lambda tx: len(tx.events(old.id)) > 0 and len(tx.plan_versions(old.id)) == 1)
    assert await pruner(it).prune() == 0


async def test_an_old_word_of_a_device_proves_nothing_after_that(it: Plant) -> None:
    await it.enrol(3)
    first, updates = await done(it)
    second, _ = await done(it, "summer", rel=3)
    it.clock.advance(KEEP_S + 1.0)
    last = await last_ones(it, first, second)
    assert last.isdisjoint(item.id for item in updates)
    assert await pruner(it).prune() == 6 - len(last)
    again = [make_report(item, Kind.CONFIRMED, n=99) for item in updates]
    assert (await it.record(*again)).ignored == {"unknown_attempt": 3, "repeated": 0}
    devices = await it.store.read(lambda tx: tx.devices("", 9))
    assert {device.rel for device in devices} == {3}, "they do not run the release of the first rollout again"


async def test_no_number_is_given_out_twice(it: Plant) -> None:
    await it.enrol(3)
    _, updates = await done(it)
    it.clock.advance(KEEP_S + 1.0)
    await pruner(it).prune()
    _, later = await done(it, "summer", rel=3)
    assert min(item.id for item in later) > max(item.id for item in updates)


async def test_who_may_still_act_stays(it: Plant) -> None:
    it.settings.lifetime_s = 2 * KEEP_S
    await it.restart()
    await it.enrol(5)
    rollout = await it.running(make_plan((4, REST)))
    await it.send()
    updates = await it.updates(rollout)
    await it.say(updates[:2], Kind.ACCEPTED)
    await it.command(rollout, Command.ABORT)
    await it.send()
    it.clock.advance(KEEP_S + 1.0)
    assert await pruner(it).prune() == 0, "their triggers are good for longer, and two are under way"
    it.clock.advance(KEEP_S)
    it.hearing()
    it.clock.advance(it.settings.grace_s)
    await it.recorder.judge_silence_once()
    assert await pruner(it).prune() == 4 - len(await last_ones(it, rollout))


async def test_a_clock_that_is_ahead_for_a_while_makes_nothing_old(it: Plant) -> None:
    await it.enrol(3)
    _, updates = await done(it)
    ticks = Clock(5.0)
    jumps = Jumps(it.store, it.clock, ticks)
    pruner = Pruner(it.store, KEEP_S, it.clock, jumps.calm_s)
    it.clock.advance(400 * DAY_S)
    assert await pruner.prune() == 0
    for clock in (it.clock, ticks):
        clock.advance(CALM_S - 1.0)
    assert await pruner.prune() == 0
    for clock in (it.clock, ticks):
        clock.advance(1.0)
    assert await pruner.prune() > 0, "that is the time now"
    assert len(updates) == 3


async def test_a_live_rollout_keeps_everything(it: Plant) -> None:
    await it.enrol(5)
    rollout = await it.running(make_plan((4, REST)))
    await it.send()
    await it.confirm((await it.updates(rollout))[:2])
    await it.command(rollout, Command.HALT)
    it.clock.advance(10 * KEEP_S)
    assert await pruner(it).prune() == 0
    assert len(await it.updates(rollout)) == 4


async def test_facts_go_once_no_fixed_cohort_is_judged_by_them(it: Plant) -> None:
    await it.enrol(4)

    async def move(site: str) -> None:
        it.clock.advance(1.0)
        await it.write(lambda tx: facts.change(tx, {"d000": Change(site=site)}, it.clock(), actor="ann"))

    first = await it.running(make_plan((1, REST)))
    await move("berlin")
    second = await it.running(make_plan((1, REST), name="second"))
    await move("paris")
    await it.command(first, Command.ABORT)
    assert await pruner(it).prune() == 1, "what held before the second cohort was fixed"
    found = await it.store.read(lambda tx: tx.past_facts(["d000"], 0.0))
    assert found["d000"].site == "berlin"
    await it.command(second, Command.ABORT)
    assert await pruner(it).prune() == 1
    assert await it.store.read(lambda tx: tx.past_facts(["d000"], 0.0)) == {}


async def test_late_words_about_what_is_over_leave_no_changes_behind(it: Plant) -> None:
    await it.enrol(2)
    rollout, updates = await done(it)
    await it.say(updates[:1], Kind.FAILED, n=100, code="sick")
    tally = await it.store.read(lambda tx: tx.tally(rollout.id))
    await pruner(it).prune()
    assert await it.store.read(lambda tx: tx.tally(rollout.id)) == tally
    with closing(sqlite3.connect(it.folder / "state.db")) as database:
        assert database.execute("select count(*) from tally_changes").fetchone() == (0,)


async def test_it_goes_in_pieces_and_outlives_a_store_that_is_away(it: Plant) -> None:
    hellos = [Hello(1, f"n{at:04}", "m1", "1.0.0", 1) for at in range(PIECE + 10)]
    await it.record(hellos=hellos)
    rollout = await it.running(make_plan((REST,)))
    await it.command(rollout, Command.ABORT)
    it.clock.advance(KEEP_S + 1.0)
    looks = asyncio.Semaphore(1)
    it.store.fails = 1
    async with running(pruner(it).run(lambda _: looks.acquire())):
        await until(lambda: not it.store.fails)
        before = it.store.transactions
        looks.release()
        await until(lambda: it.store.transactions - before == 5)  # sums, two pieces and an empty one, facts
    with_one = await it.updates(rollout)
    assert len(with_one) <= 1
