"""What the daemon says of its database."""

from __future__ import annotations

from orchestrator.engine.insight.status import of_store
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant


async def test_it_counts_devices_rollouts_and_what_waits(it: Plant) -> None:
    await it.enrol(3)
    await it.running(make_plan((REST,), in_flight=2))
    await it.create(make_plan(name="autumn"))
    await it.seal()
    assert await of_store(it.store) == {"devices": 3, "running": 1, "waiting": 2, "seq": 2}


async def test_a_database_that_is_away_is_an_answer(it: Plant) -> None:
    it.store.fails = 1
    assert await of_store(it.store) == {"error": "the database is away"}
