"""What is carried out in one transaction, and what is not."""

from __future__ import annotations

import pytest

from orchestrator.core.ceiling import STANDARD
from orchestrator.core.rollout import Open, Prepare
from orchestrator.engine import effects
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant


@pytest.mark.parametrize("effect", [Open(3), Prepare()])
async def test_bulk_work_is_not_done_in_one_transaction(it: Plant, effect: Open | Prepare) -> None:
    rollout = await it.create()
    with pytest.raises(AssertionError, match="not carried out"):
        await it.write(lambda tx: effects.carry_out(tx, rollout, effect, it.clock(), STANDARD))


async def test_an_offer_says_how_many_devices_it_looked_at(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,), in_flight=1))
    assert await it.write(lambda tx: effects.offer(tx, rollout, 5, it.clock(), STANDARD)) == 2
    assert await it.write(lambda tx: effects.offer(tx, rollout, 5, it.clock(), STANDARD)) == 0
    assert await it.states(rollout) == {"offered": 3}


async def test_nobody_is_taken_in_twice(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    assert await it.write(lambda tx: effects.open_members(tx, rollout, [], 2, it.clock())) == 0
    await it.tallies_hold(rollout)
