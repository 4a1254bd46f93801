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
from tests.support.factory import Plant, claims_of, make_verifier


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


async def refused(it: Plant, code: str) -> tuple[Rollout, bytes]:
    """Return a rollout whose one device refused its trigger, and the trigger, which stays good: no mark was raised."""
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    [(_, trigger, _)] = await it.send()
    await it.say(await it.updates(rollout), Kind.REFUSED, code=code, rel=1)
    return rollout, trigger


@pytest.mark.parametrize("command", [Command.HALT, Command.ABORT])
@pytest.mark.parametrize(("code", "state"), [("low_battery", "postponed"), ("wrong_hardware", "refused")])
async def test_who_refused_is_recalled_for_its_trigger_is_good(
    it: Plant, command: Command, code: str, state: str
) -> None:
    rollout, trigger = await refused(it, code)
    assert await it.states(rollout) == {state: 1}
    await it.command(rollout, command)
    [(_, recall, _)] = await it.send()
    now, device = int(it.clock()), make_verifier("d000")
    assert verifier.verify(trigger, device, now).kind == "install"
    verdict = verifier.verify(recall, device, now)
    assert verdict.kind == "recall"
    with pytest.raises(verifier.Refused, match="stale_seq"):
        verifier.verify(trigger, replace(device, components={"main": verdict.component}), now)
    assert await it.states(rollout) == {state: 1}
    await it.say(await it.updates(rollout), Kind.RECALLED, n=1)
    assert await it.states(rollout) == {"recalled": 1}
    await it.tallies_hold(rollout)


@pytest.mark.parametrize(("code", "stands"), [("low_battery", "pending"), ("wrong_hardware", "recalled")])
async def test_who_refused_and_answers_its_recall_later_is_offered_it_again_unless_it_refused_for_good(
    it: Plant, code: str, stands: str
) -> None:
    rollout, _ = await refused(it, code)
    await it.command(rollout, Command.HALT)
    await it.send()
    await it.command(rollout, Command.RESUME)
    await it.say(await it.updates(rollout), Kind.RECALLED, n=1)
    assert await it.states(rollout) == {stands: 1}


async def test_who_waits_for_its_next_attempt_is_recalled_by_the_one_that_it_has_a_trigger_of(it: Plant) -> None:
    rollout, _ = await refused(it, "low_battery")
    await it.command(rollout, Command.PAUSE)
    [update] = await it.updates(rollout)
    it.clock.advance((update.deadline_at or 0.0) - it.clock())
    it.hearing()
    await it.recorder.judge_silence_once()
    assert [(item.state.value, item.attempt) for item in await it.updates(rollout)] == [("pending", 2)]
    await it.command(rollout, Command.HALT)
    [(_, recall, _)] = await it.send()
    claims = claims_of(recall)
    assert (claims["act"], claims["att"]) == ("cancel", f"{update.id}.1")
    await it.command(rollout, Command.ABORT)
    assert len(await it.parcels(rollout, DeliveryKind.CANCEL)) == 1


@pytest.mark.parametrize(("code", "waits"), [("low_battery", False), ("low_battery", True), ("wrong_hardware", False)])
async def test_what_a_newer_rollout_takes_over_from_who_refused_is_recalled(it: Plant, code: str, waits: bool) -> None:
    rollout, _ = await refused(it, code)
    [update] = await it.updates(rollout)
    if waits:
        await it.command(rollout, Command.PAUSE)
        it.clock.advance((update.deadline_at or 0.0) - it.clock())
        it.hearing()
        await it.recorder.judge_silence_once()
    await it.running(make_plan((REST,), name="newer", release="radio-3.0.0"), rel=3)
    assert await it.states(rollout) == {"superseded": 1}
    sent = [claims_of(payload) for _, payload, _ in await it.send()]
    assert [(item["act"], item["att"]) for item in sent if item["act"] == "cancel"] == [("cancel", f"{update.id}.1")]
