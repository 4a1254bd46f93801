"""What is carried out in one transaction, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator import verifier
from orchestrator.core.model import Rollout
from orchestrator.core.pace.ceiling import STANDARD
from orchestrator.core.rollout import Command, Open, Prepare
from orchestrator.engine.rollouts import effects
from orchestrator.ports import DeliveryKind
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, make_verifier


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


async def gone_with_a_trigger(it: Plant) -> Rollout:
    """Return a rollout whose one device is unreached while a trigger that it may still follow waits at the broker."""
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), max_unreached=1.0))
    it.clock.advance(600.0)  # the broker was away: the trigger is made when the offer is ten minutes old
    await it.send()
    it.clock.advance(rollout.plan.deadlines.accept_s - 600.0)
    it.hearing()
    await it.recorder.judge_silence_once()
    assert await it.states(rollout) == {"unreached": 1}
    return rollout


@pytest.mark.parametrize("command", [Command.HALT, Command.ABORT])
async def test_who_was_given_up_but_may_still_get_its_trigger_is_recalled_too(it: Plant, command: Command) -> None:
    rollout = await gone_with_a_trigger(it)
    await it.command(rollout, command)
    await it.send()
    device = make_verifier("d000")
    kinds = []
    for _, payload, expiry_s in it.bus.published:
        assert expiry_s > 0
        verdict = verifier.verify(payload, device, int(it.clock()))
        kinds.append(verdict.kind)
        device = replace(device, components={"main": verdict.component})
    assert kinds == ["install", "recall"]
    [update] = await it.updates(rollout)
    await it.say([update], Kind.ACCEPTED)
    await it.say([update], Kind.RECALLED, n=1)
    assert await it.states(rollout) == {"recalled": 1}
    await it.tallies_hold(rollout)


async def test_who_was_given_up_and_can_follow_nothing_any_more_is_not_recalled(it: Plant) -> None:
    rollout = await gone_with_a_trigger(it)
    it.clock.advance(600.0)
    await it.command(rollout, Command.HALT)
    assert await it.parcels(rollout, DeliveryKind.CANCEL) == []


async def test_who_was_given_up_and_came_back_is_recalled_once(it: Plant) -> None:
    rollout = await gone_with_a_trigger(it)
    await it.record(hellos=[Hello(v=1, dev="d000", model="m1")])
    assert await it.states(rollout) == {"pending": 1}
    await it.command(rollout, Command.HALT)
    await it.command(rollout, Command.ABORT)
    assert len(await it.parcels(rollout, DeliveryKind.CANCEL)) == 1
    assert await it.states(rollout) == {"pending": 1}
