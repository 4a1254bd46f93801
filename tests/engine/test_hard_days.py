"""What must hold when things come at the wrong time: missed recalls, resumes in mid-flight, busy neighbours."""

from __future__ import annotations

import asyncio
import re

from orchestrator.adapters.store.schema import WAITING
from orchestrator.core.model import Phase, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.ports import DeliveryKind, Tx
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant

S = UpdateState


async def test_a_recall_that_was_missed_is_repeated_when_the_device_is_back(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.command(rollout, Command.ABORT)
    await it.send()
    it.clock.advance(60.0)
    await it.record(hellos=[Hello(1, "d000", "m1", rel=1)])
    recalls = await it.parcels(rollout, DeliveryKind.CANCEL)
    assert sorted(item.device_id for item in recalls) == ["d000", "d000", "d001", "d002"]
    await it.record(hellos=[Hello(1, "d000", "m1", rel=1)])
    assert len(await it.parcels(rollout, DeliveryKind.CANCEL)) == 4


async def test_failures_after_a_resume_halt_again(it: Plant) -> None:
    await it.enrol(40)
    rollout = await it.running(make_plan((20, REST)))
    await it.send()
    rebooting = await it.updates(rollout, S.OFFERED)
    await it.say(rebooting, Kind.INSTALLED)
    await it.command(rollout, Command.HALT)
    await it.command(rollout, Command.RESUME)
    await it.say(rebooting, Kind.ROLLED_BACK, n=1, rel=1)
    assert (await it.advance(rollout)).phase is Phase.HALTED
    await it.tallies_hold(rollout)


async def test_what_a_device_says_of_a_trigger_that_it_had_counts_while_it_is_pending_again(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    it.clock.advance(rollout.plan.deadlines.accept_s + 1)
    await it.recorder.judge_silence_once()
    [first, *_] = await it.updates(rollout, S.UNREACHED)
    await it.record(hellos=[Hello(1, first.device_id, "m1", rel=1)])
    await it.command(rollout, Command.HALT)
    await it.say([first], Kind.ROLLED_BACK, rel=1)
    assert [item.id for item in await it.updates(rollout, S.ROLLED_BACK)] == [first.id]
    await it.tallies_hold(rollout)


async def test_a_busy_rollout_does_not_starve_another(it: Plant) -> None:
    """The soak of one ends while reports keep waking the conductor for another."""
    await it.enrol(6)
    rollout = await it.running(make_plan((3, REST), (0.9, 0.9), soak_s=5.0))
    await it.send()
    await it.confirm(await it.updates(rollout, S.OFFERED))
    assert (await it.advance(rollout)).stage == 0
    busy = await it.create(make_plan((REST,), name="busy", release="radio-3.0.0"), rel=3)
    it.conductor._look_at = asyncio.get_running_loop().time() + 3600.0
    it.clock.advance(6.0)
    task = asyncio.create_task(it.conductor.run())
    try:
        async with asyncio.timeout(10.0):
            while (await it.rollout(rollout.id)).stage == 0:
                it.conductor.changed({busy.id})
                await asyncio.sleep(0)
    finally:
        task.cancel()


async def test_looking_for_work_uses_the_index_of_what_is_not_settled(it: Plant) -> None:
    """Everything that was ever sent stays in the table; it must not be read to find what waits."""
    await it.enrol(1)
    await it.running(make_plan((REST,)))

    def plans(tx: Tx) -> str:
        query = f"EXPLAIN QUERY PLAN SELECT id FROM deliveries WHERE {WAITING} AND state = 'planned'"
        return str(tx._connection.exec_driver_sql(query).all())  # type: ignore[attr-defined]

    assert re.search("USING (COVERING )?INDEX ix_deliveries_waiting", await it.store.read(plans))
