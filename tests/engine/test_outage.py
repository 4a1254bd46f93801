"""Outages: when one begins, what it holds, when it is over, and that nobody is judged for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging.outside import Outage
from orchestrator.core.model import Phase, Rollout, Update, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.reports.outage import LONGEST_S, WINDOW_S, Loss
from orchestrator.engine.reports.recording import Batch, record
from orchestrator.ports import Lane
from orchestrator.wire.report import Kind, State
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant

S = UpdateState
FLEET = 100
LOSS = Loss(share=0.2, floor=20)


def ids(first: int, last: int) -> list[str]:
    return [f"d{at:03}" for at in range(first, last)]


async def connection(it: Plant, device_ids: Iterable[str], online: bool) -> None:
    """Let the broker tell who is connected."""
    batch = Batch(states=[State(1, device_id, online) for device_id in device_ids])
    work = partial(record, batch=batch, now=it.clock(), enrol=True, loss=LOSS)
    await it.store.transact(Lane.REPORTS, work)


async def outage(it: Plant) -> Outage | None:
    return await it.store.read(lambda tx: tx.outage())


async def flying(it: Plant) -> tuple[Rollout, list[Update]]:
    """Return a rollout with ten devices on their way, in a fleet that is connected."""
    await it.enrol(FLEET)
    await connection(it, ids(0, FLEET), online=True)
    rollout = await it.running(make_plan((10, REST)))
    await it.send()
    return rollout, await it.updates(rollout, S.OFFERED)


async def bystanders(it: Plant, count: int) -> list[str]:
    """Return devices that no rollout has taken in."""
    taken = {item.device_id for item in (await it.store.read(lambda tx: tx.updates_of(ids(0, FLEET))))}
    return [name for name in ids(0, FLEET) if name not in taken][:count]


async def silence(it: Plant) -> int:
    return await it.recorder.judge_silence_once()


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_what_makes_an_outage_is_not_over_at_once(gone: int, connected: int) -> None:
    assert not (LOSS.makes(gone, connected) and LOSS.is_over(gone, connected))
    assert not Loss(share=1.0).makes(gone, connected)


async def test_it_begins_with_more_than_its_share_and_says_so(it: Plant) -> None:
    rollout, _ = await flying(it)
    others = await bystanders(it, 90)
    await connection(it, others[:20], online=False)
    assert await outage(it) is None
    await connection(it, others[20:21], online=False)
    assert await outage(it) == Outage(it.clock(), 21, 0.21)
    assert [entry.action for entry in await it.store.read(lambda tx: tx.audit_entries(0, 99))][-1] == "outage.began"
    view = await it.store.read(lambda tx: tx.rollout(rollout.id))
    assert view is not None
    assert view.phase is Phase.RUNNING


async def test_devices_that_reboot_or_die_in_an_update_make_none(it: Plant) -> None:
    _, updates = await flying(it)
    await connection(it, [item.device_id for item in updates], online=False)
    gone, left = await it.store.read(lambda tx: (tx.gone_since(0.0), tx.connected()))
    assert (gone, left) == (0, 90)


async def test_who_flaps_is_counted_once_and_who_is_back_not_at_all(it: Plant) -> None:
    await it.enrol(FLEET)
    await connection(it, ids(0, FLEET), online=True)
    for _ in range(5):
        await connection(it, ids(0, 15), online=False)
        await connection(it, ids(0, 15), online=True)
    await connection(it, [*ids(0, 15), *ids(0, 15)], online=False)
    assert await it.store.read(lambda tx: (tx.gone_since(0.0), tx.connected())) == (15, 85)
    it.clock.advance(WINDOW_S + 1)
    await connection(it, ids(20, 35), online=False)
    assert await outage(it) is None, "the first ones went long ago"


async def test_strangers_and_who_never_was_connected_count_nothing(it: Plant) -> None:
    await it.enrol(30)
    await connection(it, [*ids(0, 30), "stranger"], online=False)
    assert await it.store.read(lambda tx: (tx.gone_since(0.0), tx.connected())) == (0, 0)


async def test_it_holds_offers_and_silence_and_then_everybody_gets_the_time_back(it: Plant) -> None:
    rollout, updates = await flying(it)
    await it.say(updates, Kind.ACCEPTED)
    before = {item.id: item.deadline_at for item in await it.updates(rollout, S.ACCEPTED)}
    others = await bystanders(it, 40)
    await connection(it, others, online=False)
    it.clock.advance(7200.0)  # the download may take an hour
    assert await silence(it) == 0
    held = await it.advance(rollout)
    assert (held.phase, await it.states(held)) == (Phase.RUNNING, {"accepted": 10})
    await connection(it, others[:30], online=True)
    assert await outage(it) is None
    after = {item.id: item.deadline_at for item in await it.updates(rollout, S.ACCEPTED)}
    assert after == {number: pytest.approx((at or 0.0) + 7200.0, abs=1e-3) for number, at in before.items()}
    assert await silence(it) == 0
    it.clock.advance(3600.0)
    assert await silence(it) > 0
    assert (await it.states(rollout))["expired"] == 10


async def test_devices_of_a_rollout_that_is_over_get_the_time_back_too(it: Plant) -> None:
    rollout, updates = await flying(it)
    await it.say(updates, Kind.ACCEPTED)
    await it.say(updates, Kind.DOWNLOADED, 1)
    await it.say(updates, Kind.INSTALLED, 2)
    await it.command(rollout, Command.ABORT)
    others = await bystanders(it, 40)
    await connection(it, others, online=False)
    it.clock.advance(7200.0)
    await connection(it, others, online=True)
    assert await outage(it) is None
    assert await silence(it) == 0
    it.clock.advance(3600.0)
    assert await silence(it) > 0
    assert await it.states(rollout) == {"lost": 10}


async def test_what_devices_say_in_an_outage_still_halts(it: Plant) -> None:
    rollout, updates = await flying(it)
    await connection(it, await bystanders(it, 60), online=False)
    await it.say(updates[:3], Kind.FAILED, code="theirs")
    assert (await it.advance(rollout)).phase is Phase.HALTED


async def test_it_outlives_a_crash_and_is_over_after_its_longest(it: Plant) -> None:
    _, updates = await flying(it)
    await it.say(updates, Kind.ACCEPTED)
    await connection(it, await bystanders(it, 90), online=False)
    await it.restart()
    assert await outage(it) is not None
    it.clock.advance(LONGEST_S)
    assert await silence(it) == 0, "the time of the outage is given back first"
    assert await outage(it) is None
    it.clock.advance(3600.0)
    assert await silence(it) > 0
