"""What devices say of themselves: what is kept, how old it is, and whom it concerns."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.pace.hold import Situation
from orchestrator.core.pace.requirement import Condition, Link, Told, Wish
from orchestrator.engine.reports.situations import learned
from orchestrator.wire.report import Hello, Kind, OwnFacts
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant


def learn(before: Situation, now: float = 10.0, rel: int | None = 1, **said: Any) -> Situation:
    return learned(before, OwnFacts(**said), rel, now)


def test_a_fact_replaces_the_same_fact_and_nothing_else_gets_younger() -> None:
    first = learn(Situation(), 10.0, bat=50, charging=False, link="wifi", free=9, slot=8, metered=True, uptime=7)
    assert first.condition == Condition(
        battery_pct=Told(50, 10.0),
        charging=Told(False, 10.0),
        free_bytes=Told(9, 10.0),
        slot_bytes=Told(8, 10.0),
        link=Told(Link.WIFI, 10.0),
        metered=Told(True, 10.0),
        uptime_s=Told(7, 10.0),
    )
    second = learn(first, 20.0, bat=49)
    assert second.condition.battery_pct == Told(49, 20.0)
    assert second.condition.charging == Told(False, 10.0)


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ([{"agreed": True}], Wish(True)),
        ([{"later": 100}], Wish(False, 100.0, 1)),
        ([{"later": 100}, {"later": 100}, {"bat": 5}], Wish(False, 100.0, 1)),
        ([{"later": 100}, {"later": 200}], Wish(False, 200.0, 2)),
        ([{"later": 100}, {"agreed": True}], Wish(True, 100.0, 1)),
        ([{"agreed": True}, {"agreed": False}], Wish(False)),
    ],
)
def test_the_wish_of_a_user(words: list[dict[str, Any]], wish: Wish) -> None:
    found = Situation()
    for said in words:
        found = learn(found, **said)
    assert (found.wish, found.wish_rel) == (wish, 1)


def test_a_wish_is_about_the_next_update_only() -> None:
    before = learn(learn(Situation(), later=100), later=200)
    after = learn(before, rel=2, later=300)
    assert (after.wish, after.wish_rel) == (Wish(False, 300.0, 1), 2)


async def test_what_was_said_is_kept_over_a_restart_and_of_registered_devices_alone(it: Plant) -> None:
    await it.enrol(2)
    facts = OwnFacts(bat=50, charging=True, link="cellular", slot=2**20, agreed=True)
    known = Hello(v=1, dev="d000", model="m1", rel=1, facts=facts)
    now = it.clock()
    await it.record(hellos=[known])
    await it.restart()
    found = await it.store.read(lambda tx: tx.situations(["d000", "d001", "x"]))
    assert found["d000"] == learned(Situation(), facts, 1, now)
    assert found["d001"] == Situation()
    assert "x" not in found


async def test_a_report_carries_facts_as_well_as_a_hello(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    [update] = await it.updates(rollout)
    await it.say([update], Kind.ACCEPTED, facts=OwnFacts(free=77))
    found = await it.store.read(lambda tx: tx.situations(["d000"]))
    assert found["d000"].condition.free_bytes == Told(77, it.clock())
