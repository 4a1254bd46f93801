"""The lane of urgent rollouts on a real store: reserved slots, no soaks in an emergency, the halt rules untouched."""

from __future__ import annotations

import json

import pytest

from orchestrator.core.model import Phase, Rollout, UpdateState, Urgency
from orchestrator.core.pace.budget import Budget
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.rollout import Command
from orchestrator.engine.rollouts import effects
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, stock

S = UpdateState


async def two(it: Plant, urgency: Urgency) -> tuple[Rollout, Rollout]:
    """A background rollout that would take all slots, and another one beside it."""
    await it.enrol(20, "m1", "a")
    await it.enrol(20, "m2", "b")
    it.conductor._limits = Ceiling(budget=Budget(10, 0.2))
    one = await it.running(make_plan((REST,), models=("m1",), urgency=Urgency.BACKGROUND))
    await it.write(lambda tx: stock(tx, 3, ("m2",)))
    other = await it.create(make_plan((REST,), name="fix", release="radio-3.0.0", urgency=urgency))
    await it.command(other, Command.START)
    return one, await it.advance(other)


async def test_a_background_rollout_never_takes_the_reserved_slots(it: Plant) -> None:
    one, fix = await two(it, Urgency.SECURITY)
    assert await it.states(one) == {"offered": 8, "pending": 12}
    assert await it.states(fix) == {"offered": 2, "pending": 18}
    await it.confirm((await it.updates(one, S.OFFERED))[:3])
    await it.advance(fix)
    await it.advance(one)
    assert (await it.states(fix))["offered"] == 5
    assert (await it.states(one))["pending"] == 12


async def test_rollouts_that_are_not_urgent_share_the_rest(it: Plant) -> None:
    one, other = await two(it, Urgency.NORMAL)
    assert (await it.states(one))["offered"] == 8
    assert await it.states(other) == {"pending": 20}
    await it.confirm((await it.updates(one, S.OFFERED))[:2])
    await it.advance(other)
    assert (await it.states(other))["offered"] == 2


async def test_the_budget_is_kept_where_offers_are_made(it: Plant) -> None:
    _, fix = await two(it, Urgency.SECURITY)
    await it.write(lambda tx: effects.offer(tx, fix, 50, it.clock(), it.conductor.limits))
    assert await it.states(fix) == {"offered": 2, "pending": 18}


async def test_an_emergency_waits_for_no_soak(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST), soak_s=3600, urgency=Urgency.EMERGENCY))
    await it.confirm(await it.updates(rollout, S.OFFERED))
    assert (await it.advance(rollout)).stage == 1
    calm = make_plan((10, REST), soak_s=3600, name="calm", models=("m2",), release="radio-3.0.0")
    await it.enrol(20, "m2", "b")
    await it.write(lambda tx: stock(tx, 3, ("m2",)))
    slow = await it.running(calm)
    await it.confirm(await it.updates(slow, S.OFFERED))
    assert (await it.advance(slow)).stage == 0


async def test_what_an_emergency_overrides_stands_in_the_audit_log_once(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST), soak_s=3600, urgency=Urgency.EMERGENCY))
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 100))
    [told] = [json.loads(item.detail) for item in entries if item.action == "rollout.overrides"]
    assert told == {"urgency": "emergency", "overrides": ["soaks of 3600 s, 3600 s"]}


@pytest.mark.parametrize("urgency", Urgency)
async def test_no_urgency_overrides_what_halts(it: Plant, urgency: Urgency) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((REST,), urgency=urgency))
    await it.say((await it.updates(rollout, S.OFFERED))[:2], Kind.FAILED)
    halted = await it.advance(rollout)
    assert (halted.phase, halted.reason.code) == (Phase.HALTED, "evidence")
