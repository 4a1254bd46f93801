"""The blast ceiling on a real store: over all rollouts, across restarts, and told to whoever asks."""

from __future__ import annotations

import pytest

from orchestrator.core.model import Rollout, UpdateState
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.rollout import Command
from orchestrator.engine.insight import explain, views
from orchestrator.engine.rollouts import effects
from orchestrator.ports import Tx
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, stock

S = UpdateState
LIMITS = Ceiling(share=0.2, floor=4)


@pytest.fixture(autouse=True)
def _low_ceiling(it: Plant) -> None:
    it.conductor._limits = LIMITS


async def spent(it: Plant) -> int:
    return sum((await it.store.read(lambda tx: tx.offers())).values())


async def restarted(it: Plant) -> None:
    """Crash and start again, and wait until silence may be judged."""
    await it.restart()
    it.conductor._limits = LIMITS
    it.clock.advance(it.settings.grace_s)
    assert it.hearing()


async def two_rollouts(it: Plant) -> tuple[Rollout, Rollout]:
    await it.enrol(10, "m1", "a")
    await it.enrol(10, "m2", "b")
    one = await it.running(make_plan((REST,), models=("m1",), in_flight=3))
    await it.write(lambda tx: stock(tx, 3, ("m2",)))
    other = await it.create(make_plan((REST,), name="autumn", release="radio-3.0.0"))
    return one, other


async def test_all_rollouts_share_one_ceiling(it: Plant) -> None:
    one, other = await two_rollouts(it)
    assert (await it.states(one))["offered"] == 3
    await it.command(other, Command.START)
    await it.advance(other)
    assert (await it.states(other))["offered"] == 1
    assert await spent(it) == 4
    await it.confirm(await it.updates(one, S.OFFERED))
    await it.advance(one)
    await it.advance(other)
    assert await spent(it) == 4


async def test_it_goes_on_when_there_is_room(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    began = it.clock()
    assert await it.states(rollout) == {"offered": 4, "pending": 6}
    opens_at = began // 60 * 60 + 3660
    assert it.conductor._wake_at == {rollout.id: opens_at}
    it.clock.advance(opens_at - began - 1)
    await it.advance(rollout)
    assert (await it.states(rollout))["pending"] == 6
    it.clock.advance(1)
    await it.advance(rollout)
    assert await it.states(rollout) == {"offered": 8, "pending": 2}


async def test_a_restart_forgets_no_offer(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    await restarted(it)
    await it.advance(rollout)
    assert (await it.states(rollout))["offered"] == 4


async def test_a_trigger_that_is_given_again_is_no_further_offer(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    it.clock.advance(60)
    device = (await it.updates(rollout, S.OFFERED))[0].device_id
    assert (await it.record(hellos=[Hello(1, device, "m1", "1.0.0", 1)])).planned
    await it.poll(device)
    assert len(await it.parcels(rollout)) == 5
    assert await spent(it) == 4


async def test_nobody_offers_past_it(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    assert await it.write(lambda tx: effects.offer(tx, rollout, 5, it.clock(), LIMITS)) == 0
    assert await it.write(lambda tx: effects.offer(tx, rollout, 5, it.clock(), Ceiling(floor=6))) == 2
    assert (await it.states(rollout))["offered"] == 6
    await it.tallies_hold(rollout)


async def test_an_offer_that_is_rolled_back_is_not_counted(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,), in_flight=1))

    def fails(tx: Tx) -> None:
        effects.offer(tx, rollout, 2, it.clock(), LIMITS)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        await it.write(fails)
    assert await spent(it) == 1


async def test_a_clock_that_was_set_back_holds_for_an_hour_at_most(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    it.clock.advance(-365 * 86_400)
    await restarted(it)
    rollout = await it.advance(rollout)
    assert it.conductor._wake_at[rollout.id] <= it.clock() + 3660
    it.clock.advance(3660)
    assert it.hearing()
    await it.advance(rollout)
    assert (await it.states(rollout))["offered"] == 8


async def test_explain_says_that_the_ceiling_holds(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((REST,), in_flight=100))
    assert (await it.states(rollout))["offered"] == 6
    it.clock.advance(49 * 60)
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)

    told = await it.store.read(
        lambda tx: explain.explain_rollout(tx, "spring", it.clock(), hearing=it.hearing(), limits=LIMITS)
    )
    assert (told["code"], told["wake_at"]) == ("ceiling", it.conductor._wake_at[rollout.id])
    assert told["because"] == "waits for the ceiling: 6 of 30 devices per hour; room in 12 min"
    assert told["next"][-1] == "it goes on by itself when there is room under the ceiling"
    seen = await it.store.read(
        lambda tx: views.rollout_view(tx, "spring", it.clock(), hearing=it.hearing(), limits=LIMITS)
    )
    assert seen["standing"]["code"] == "ceiling"


async def test_evidence_still_halts_a_rollout_that_waits(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((REST,), in_flight=100))
    await it.send()
    await it.say(await it.updates(rollout, S.OFFERED), Kind.FAILED)
    assert (await it.advance(rollout)).phase == "halted"
