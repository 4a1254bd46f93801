"""The conductor on a real store: commands and evidence, with what they do to updates and deliveries."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from orchestrator.core.model import HaltRule, Phase, Plan, Rollout, Update, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import DeliveryKind, DeliveryState, Lane
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Plant, claims_of

S, D, P, C = UpdateState, DeliveryState, Phase, Command
CANCEL = DeliveryKind.CANCEL


async def kept(it: Plant, rollout: Rollout, kind: DeliveryKind = DeliveryKind.INSTALL) -> list[str]:
    """Return the states of the deliveries of a rollout."""
    return [item.state.value for item in await it.parcels(rollout, kind)]


async def record_of(it: Plant, rollout: Rollout) -> list[tuple[str, str]]:
    events = await it.store.read(lambda tx: tx.events(rollout.id))
    return [(item.phase.value, item.code) for item in events]


async def healthy(it: Plant, rollout: Rollout) -> Rollout:
    """Confirm every device in flight until none is left."""
    while flying := await it.updates(rollout, S.OFFERED):
        await it.confirm(flying)
        rollout = await it.advance(rollout)
    return rollout


# From start to end


async def test_a_start_prepares_opens_and_offers(it: Plant) -> None:
    await it.enrol(30)
    await it.enrol(3, "other", "x")
    await it.enrol(2, "m1", "new", rel=2)
    rollout = await it.create(make_plan((20, REST)))
    started = await it.command(rollout, C.START)
    assert (started.phase, started.version, started.cohort_size) == (P.PREPARING, 2, None)
    it.clock.advance(30)
    it.planned.clear()
    opened = await it.advance(rollout)
    assert (opened.phase, opened.cohort_size, opened.strata, opened.cohort_at) == (P.RUNNING, 30, 1, it.clock())
    assert await it.states(rollout) == {"offered": 10, "pending": 10}
    assert it.planned.is_set()
    offered = await it.updates(rollout, S.OFFERED)
    assert {(item.stage, item.state_at, item.deadline_at) for item in offered} == {(0, it.clock(), it.clock() + 86_400)}
    parcels = await it.parcels(rollout)
    assert [item.update_id for item in parcels] == [item.id for item in offered]
    assert {(item.state, item.push, item.rollout_version) for item in parcels} == {(D.PLANNED, True, opened.version)}
    assert await record_of(it, rollout) == [
        ("draft", "created"),
        ("preparing", "operator_start"),
        ("running", "prepared"),
    ]
    await it.tallies_hold(rollout)


async def test_a_healthy_rollout_passes_stage_after_stage(it: Plant) -> None:
    await it.enrol(60)
    rollout = await healthy(it, await it.running(make_plan((20, 30, REST))))
    assert (rollout.phase, rollout.stage) == (P.DONE, 2)
    assert await it.states(rollout) == {"confirmed": 60}
    assert [stage.target for stage in rollout.stages] == [20, 30, 10]
    assert [code for _, code in await record_of(it, rollout)][-3:] == ["passed"] * 3
    await it.tallies_hold(rollout)


async def test_a_soak_is_waited_for(it: Plant) -> None:
    await it.enrol(20)
    rollout = await healthy(it, await it.running(make_plan((10, REST), soak_s=600)))
    assert rollout.stage == 0
    assert it.conductor._wake_at == {rollout.id: it.clock() + 600}
    it.clock.advance(599)
    assert (await it.advance(rollout)).stage == 0
    it.clock.advance(1)
    assert (await it.advance(rollout)).stage == 1
    assert it.conductor._wake_at == {}


async def test_an_empty_cohort_goes_back_to_draft(it: Plant) -> None:
    rollout = await it.running(make_plan())
    assert (rollout.phase, rollout.reason.code) == (P.DRAFT, "empty_cohort")
    await it.enrol(1)
    rollout = await it.command(rollout, C.START)
    assert (await it.advance(rollout)).phase is P.RUNNING


async def test_a_cohort_that_shrank_is_corrected(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST)))
    waiting = {item.device_id for item in await it.updates(rollout)}
    gone = [f"d{at:03}" for at in range(20) if f"d{at:03}" not in waiting][:4]
    await it.record(hellos=[Hello(1, device, "m1", "2.0.0", 2) for device in gone])
    rollout = await healthy(it, rollout)
    assert (rollout.phase, rollout.cohort_size, rollout.stages[1].target) == (P.DONE, 16, 6)
    assert await it.states(rollout) == {"confirmed": 16}


async def test_devices_registered_later_are_not_in_the_cohort(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((5, REST)))
    it.clock.advance(1)
    await it.enrol(10, prefix="late")
    rollout = await healthy(it, rollout)
    assert (rollout.phase, await it.states(rollout)) == (P.DONE, {"confirmed": 10})


async def test_a_large_stage_is_opened_in_pieces_of_bulk_work(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engine.rollouts.conductor.CHUNK", 4)
    await it.enrol(11)
    rollout = await it.running(make_plan((REST,), in_flight=1))
    assert await it.states(rollout) == {"offered": 1, "pending": 10}


async def test_nothing_is_offered_while_nobody_can_be_heard(it: Plant) -> None:
    await it.enrol(5)
    rollout = await it.create(make_plan((REST,)))
    await it.command(rollout, C.START)
    assert await it.states(await it.advance(rollout)) == {}
    it.clock.advance(30)
    assert await it.states(await it.advance(rollout)) == {"offered": 5}


# Commands


async def test_a_pause_takes_back_what_is_queued_and_leaves_what_is_exposed(it: Plant) -> None:
    await it.enrol(6)
    rollout = await it.running(make_plan((REST,)))
    await it.sealer.seal_once()
    claimed = await it.store.transact(Lane.OPERATOR, lambda tx: tx.claim(2, it.clock()))
    paused = await it.command(rollout, C.PAUSE)
    assert (paused.phase, paused.version) == (P.PAUSED, rollout.version + 1)
    assert await it.states(rollout) == {"offered": 2, "pending": 4}
    assert [item.id for item in await it.updates(rollout, S.OFFERED)] == [item.update_id for item in claimed]
    assert sorted(await kept(it, rollout)) == ["claimed"] * 2 + ["void"] * 4
    assert await kept(it, rollout, CANCEL) == []
    await it.tallies_hold(rollout)
    assert await it.states(await it.advance(paused)) == {"offered": 2, "pending": 4}
    resumed = await it.command(rollout, C.RESUME, "")
    assert resumed.phase is P.RUNNING
    await it.advance(resumed)
    assert await it.states(rollout) == {"offered": 6}


@pytest.mark.parametrize("command", [C.HALT, C.ABORT])
async def test_a_halt_and_an_abort_recall_what_was_exposed(it: Plant, command: Command) -> None:
    await it.enrol(6)
    rollout = await it.running(make_plan((REST,)))
    await it.sealer.seal_once()
    claimed = await it.store.transact(Lane.OPERATOR, lambda tx: tx.claim(4, it.clock()))
    updates = [update for update in await it.updates(rollout) if update.id in {item.update_id for item in claimed}]
    await it.say(updates[:1], Kind.ACCEPTED)
    await it.say(updates[1:2], Kind.INSTALLED)
    it.planned.clear()
    halted = await it.command(rollout, command)
    assert halted.phase is {C.HALT: P.HALTED, C.ABORT: P.ABORTED}[command]
    assert it.planned.is_set()  # the recalls must be sealed at once
    assert await it.states(rollout) == {"recalling": 3, "installed": 1, "pending": 2}
    assert sorted(await kept(it, rollout)) == ["claimed"] * 4 + ["void"] * 2
    assert await kept(it, rollout, CANCEL) == ["planned"] * 3
    await it.tallies_hold(rollout)


async def test_a_resume_offers_recalled_devices_the_same_attempt_again(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    first = await it.send()
    await it.command(rollout, C.HALT)
    await it.say(await it.updates(rollout, S.RECALLING), Kind.RECALLED)
    assert await it.states(rollout) == {"recalled": 3}
    resumed = await it.command(rollout, C.RESUME)
    assert (resumed.epoch, await it.states(rollout)) == (1, {"pending": 3})
    await it.advance(resumed)
    assert {item.epoch for item in await it.updates(rollout, S.OFFERED)} == {1}
    again = [item for item in await it.send() if claims_of(item[1])["act"] == "install"]
    assert {claims_of(token)["att"] for _, token, _ in again} == {claims_of(token)["att"] for _, token, _ in first}
    await it.tallies_hold(rollout)


async def test_what_was_recalled_and_offered_again_can_be_taken_back_once_more(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.command(rollout, C.HALT)
    await it.say(await it.updates(rollout), Kind.RECALLED)
    it.clock.advance(60)
    rollout = await it.advance(await it.command(rollout, C.RESUME))
    assert await it.states(rollout) == {"offered": 1}
    await it.command(rollout, C.PAUSE)
    assert await it.states(rollout) == {"pending": 1}


async def test_a_command_that_holds_already_changes_nothing(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    paused = await it.command(rollout, C.PAUSE)
    before = await record_of(it, rollout)
    again = await it.conductor.command("spring", C.PAUSE, actor="bob", reason="")
    assert (again.rollout, again.reason.code) == (paused, "unchanged")
    assert await record_of(it, rollout) == before


async def test_a_command_that_cannot_be_is_refused(it: Plant) -> None:
    rollout = await it.create()
    with pytest.raises(NotFoundError, match="autumn"):
        await it.conductor.command("autumn", C.START, actor="ann", reason="")
    with pytest.raises(ConflictError, match="cannot pause"):
        await it.command(rollout, C.PAUSE)
    await it.enrol(1)
    running_ = await it.running(make_plan((REST,), name="second"))
    await it.command(running_, C.HALT)
    with pytest.raises(RequestError, match="needs a reason"):
        await it.command(running_, C.RESUME, " ")


async def test_of_two_operators_one_is_first_and_the_other_is_told(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    results = await asyncio.gather(
        it.conductor.command("spring", C.ABORT, actor="ann", reason="stop"),
        it.conductor.command("spring", C.PAUSE, actor="bob", reason="wait"),
        it.conductor.command("spring", C.ABORT, actor="eve", reason="stop"),
        return_exceptions=True,
    )
    first, second, third = results
    assert not isinstance(first, BaseException)
    assert isinstance(second, ConflictError)
    assert not isinstance(third, BaseException)
    assert (first.rollout.actor, third.reason.code, third.rollout.actor) == ("ann", "unchanged", "ann")
    assert (await record_of(it, rollout))[-1] == ("aborted", "operator_abort")


async def test_a_pause_while_the_cohort_is_taken_in_stops_it(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command comes between two pieces of bulk work."""
    monkeypatch.setattr("orchestrator.engine.rollouts.conductor.CHUNK", 2)
    await it.enrol(6)
    rollout = await it.create(make_plan((REST,)))
    await it.command(rollout, C.START)
    it.clock.advance(30)
    task = asyncio.ensure_future(it.advance(rollout))
    taken: list[Update] = []
    while len(taken) < 2:
        taken = await it.updates(rollout)
    await it.command(rollout, C.PAUSE)
    await task
    opened = len(await it.updates(rollout))
    assert opened in (2, 4, 6)
    await it.tallies_hold(rollout)
    await it.command(rollout, C.RESUME)
    await it.advance(rollout)
    assert (await it.rollout(rollout.id)).stages[0].target == len(await it.updates(rollout)) == 6


async def test_a_rollout_stopped_while_it_prepares_stays_stopped(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.create(make_plan((REST,)))
    started = await it.command(rollout, C.START)
    await it.command(rollout, C.PAUSE)
    await it.conductor._prepare(started)
    paused = await it.advance(rollout)
    assert (paused.phase, paused.stages) == (P.PAUSED, ())
    resumed = await it.command(rollout, C.RESUME)
    assert resumed.phase is P.PREPARING
    it.clock.advance(30)
    assert await it.states(await it.advance(resumed)) == {"offered": 3}


# Evidence


async def test_evidence_halts_and_voids_in_one_transaction(it: Plant) -> None:
    await it.enrol(40)
    rollout = await it.running(make_plan((REST,), in_flight=40))
    await it.sealer.seal_once()
    claimed = await it.store.transact(Lane.OPERATOR, lambda tx: tx.claim(5, it.clock()))
    updates = {item.id: item for item in await it.updates(rollout)}
    exposed = [updates[item.update_id] for item in claimed]
    await it.say(exposed[:3], Kind.FAILED, code="no_boot")
    it.store.transactions = 0
    it.planned.clear()
    halted = await it.advance(rollout)
    assert it.store.transactions == 2  # the halt, and the look that finds nothing more to do
    assert (halted.phase, halted.reason.code, halted.actor) == (P.HALTED, "evidence", "orchestrator")
    assert await it.states(rollout) == {"failed": 3, "recalling": 2, "pending": 35}
    assert sorted(await kept(it, rollout)) == ["claimed"] * 5 + ["void"] * 5
    assert await kept(it, rollout, CANCEL) == ["planned"] * 2
    assert it.planned.is_set()
    assert await it.store.transact(Lane.OPERATOR, lambda tx: tx.claim(50, it.clock())) == []
    await it.tallies_hold(rollout)


async def test_evidence_halts_a_paused_rollout(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.command(rollout, C.PAUSE)
    await it.say((await it.updates(rollout, S.OFFERED))[:5], Kind.FAILED)
    assert (await it.advance(rollout)).phase is P.HALTED


async def test_a_device_lost_after_the_reboot_halts_a_small_stage(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.say((await it.updates(rollout))[:1], Kind.INSTALLED)
    it.clock.advance(601)
    await it.recorder.judge_silence_once()
    halted = await it.advance(rollout)
    assert (halted.phase, halted.reason.code) == (P.HALTED, "lost_after_reboot")


async def test_a_relapse_counts_in_the_stage_that_is_open(it: Plant) -> None:
    await it.enrol(40)
    rollout = await it.running(make_plan((10, REST), (0.5,)))
    first = await it.updates(rollout)
    await it.confirm(first)
    rollout = await it.advance(rollout)
    assert rollout.stage == 1
    await it.say(first[:1], Kind.FAILED, n=100, code="crash")
    [relapsed] = await it.updates(rollout, S.FAILED)
    assert (relapsed.stage, relapsed.relapsed_stage) == (0, 1)
    await it.tallies_hold(rollout)


# Superseding


def newer(plan: Plan) -> Plan:
    return replace(plan, name="summer", release="radio-3.0.0")


async def test_a_newer_rollout_takes_over_what_has_not_begun(it: Plant) -> None:
    await it.enrol(6)
    old = await it.running(make_plan((REST,), in_flight=5))
    await it.sealer.seal_once()
    [first, second] = await it.store.transact(Lane.OPERATOR, lambda tx: tx.claim(2, it.clock()))
    begun = [item for item in await it.updates(old) if item.id == first.update_id]
    await it.say(begun, Kind.ACCEPTED)
    new = await it.running(newer(old.plan), rel=3)
    assert await it.states(old) == {"accepted": 1, "superseded": 5}
    assert await it.states(new) == {"offered": 5, "pending": 1}
    assert sorted(await kept(it, old)) == ["claimed"] * 2 + ["void"] * 3
    [recall] = await it.parcels(old, CANCEL)
    assert recall.device_id == second.device_id
    for rollout in (old, new):
        await it.tallies_hold(rollout)
    await it.say(begun, Kind.FAILED, n=1)
    await it.advance(new)
    assert await it.states(new) == {"offered": 5, "pending": 1}  # its slots are taken
    await it.confirm((await it.updates(new, S.OFFERED))[:1])
    await it.advance(new)
    assert await it.states(new) == {"offered": 5, "confirmed": 1}


async def test_what_was_only_planned_is_voided_when_it_is_taken_over(it: Plant) -> None:
    """There is no trigger yet that a recall could name, and none may be made any more."""
    await it.enrol(3)
    old = await it.running(make_plan((REST,)))
    new = await it.running(newer(old.plan), rel=3)
    assert await kept(it, old) == ["void"] * 3
    assert await kept(it, old, CANCEL) == []
    sent = await it.send()
    assert {(claims_of(token)["cid"], claims_of(token)["act"]) for _, token, _ in sent} == {(str(new.id), "install")}


async def test_an_older_rollout_takes_nothing_back(it: Plant) -> None:
    await it.enrol(10)
    old = await it.running(make_plan((5, REST)))
    await it.send()
    new = await it.running(newer(make_plan((REST,))), rel=3)
    await it.command(new, C.PAUSE)
    assert await it.states(new) == {"pending": 10}
    closed = await it.advance(old)
    assert (closed.phase, await it.states(old)) == (P.INCONCLUSIVE, {"superseded": 10})
    await it.tallies_hold(old)


async def test_a_device_recalled_from_an_older_rollout_stays_with_the_newer(it: Plant) -> None:
    await it.enrol(1)
    old = await it.running(make_plan((REST,)))
    await it.send()
    await it.command(old, C.HALT)
    new = await it.running(newer(old.plan), rel=3)
    assert (await it.states(old), await it.states(new)) == ({"recalling": 1}, {"pending": 1})
    await it.say(await it.updates(old), Kind.RECALLED)
    await it.command(new, C.PAUSE)
    resumed = await it.advance(await it.command(old, C.RESUME))
    assert await it.states(resumed) == {"superseded": 1}
    await it.advance(await it.command(new, C.RESUME))
    assert await it.states(new) == {"offered": 1}


async def test_an_offer_closes_what_older_rollouts_still_have(it: Plant) -> None:
    """A late report about the older one must not find two updates in flight."""
    await it.enrol(1)
    old = await it.running(make_plan((REST,)))
    await it.send()
    await it.command(old, C.HALT)
    new = await it.running(newer(old.plan), rel=3)
    await it.say(await it.updates(old), Kind.RECALLED)
    await it.advance(new)
    assert (await it.states(old), await it.states(new)) == ({"superseded": 1}, {"offered": 1})
    done = await it.say(await it.updates(old), Kind.TOO_LATE, n=1)
    assert done.ignored == {"repeated": 1}
    assert (await it.states(old), await it.states(new)) == ({"superseded": 1}, {"offered": 1})


async def test_devices_that_are_busy_elsewhere_are_waited_for(it: Plant) -> None:
    """All that is pending is in flight in another rollout: the step ends, and the next one finds them free."""
    await it.enrol(2)
    old = await it.running(make_plan((REST,)))
    await it.send()
    await it.say(await it.updates(old), Kind.ACCEPTED)
    new = await it.running(newer(old.plan), rel=3)
    assert (await it.states(old), await it.states(new)) == ({"accepted": 2}, {"pending": 2})
    await it.say(await it.updates(old), Kind.FAILED, n=1)
    await it.advance(new)
    assert await it.states(new) == {"offered": 2}


# The loop, and crashes


async def test_the_loop_steps_what_changed_and_what_is_due(it: Plant) -> None:
    await it.enrol(4)
    rollout = await it.create(make_plan((2, REST), soak_s=50))
    it.clock.advance(30)
    async with running(it.conductor.run()):
        await it.command(rollout, C.START)
        await until(it.planned.is_set)
        first = await it.updates(rollout, S.OFFERED)
        while len(first) < 2:
            first = await it.updates(rollout, S.OFFERED)
        await it.confirm(first)
        it.conductor.changed({rollout.id})
        await until(lambda: rollout.id in it.conductor._wake_at)
        it.clock.advance(50)
        it.conductor.changed(set())
        while not await it.updates(rollout, S.OFFERED):
            await asyncio.sleep(0.001)
    assert (await it.rollout(rollout.id)).stage == 1


async def test_the_loop_looks_at_everything_after_a_start(it: Plant) -> None:
    await it.enrol(2)
    rollout = await it.create(make_plan((REST,)))
    await it.command(rollout, C.START)
    await it.restart()
    it.clock.advance(30)
    async with running(it.conductor.run()):
        while not await it.updates(rollout, S.OFFERED):
            await asyncio.sleep(0.001)


async def test_the_loop_looks_again_when_it_was_idle(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have changed something that nobody told us of."""
    monkeypatch.setattr("orchestrator.engine.rollouts.conductor.IDLE_S", 0.01)
    await it.enrol(2)
    rollout = await it.create(make_plan((REST,)))
    async with running(it.conductor.run()):
        await it.command(rollout, C.START)
        while not await it.updates(rollout):
            it.clock.advance(30)
            await asyncio.sleep(0.001)


async def test_the_loop_survives_a_store_that_is_away(it: Plant) -> None:
    await it.enrol(2)
    rollout = await it.create(make_plan((REST,)))
    await it.command(rollout, C.START)
    it.clock.advance(30)
    it.store.fails = 1
    with capture_logs() as logs:
        async with running(it.conductor.run()):
            await until(lambda: not it.store.fails)
            it.planned.clear()
            it.store.fails = 2
            it.conductor.changed({rollout.id})
            await until(it.planned.is_set)
    assert [item["event"] for item in logs if item["log_level"] == "error"] == ["store.unavailable"] * 3


class CrashError(Exception):
    """The process died before a transaction."""


@pytest.mark.parametrize("survived", range(12))
async def test_a_crash_between_any_two_transactions_is_gone_on_from(
    it: Plant, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    monkeypatch.setattr("orchestrator.engine.rollouts.conductor.CHUNK", 4)
    await it.enrol(15)
    rollout = await it.create(make_plan((6, REST), (0.5, 0.5), halt=HaltRule()))
    await it.command(rollout, C.START)
    it.clock.advance(30)
    left = survived

    def crash() -> None:
        nonlocal left
        if left == 0:
            raise CrashError
        left -= 1

    it.store.breaks = crash
    try:
        await it.advance(rollout)
    except CrashError:
        await it.restart()
    it.store.breaks = None
    it.clock.advance(30)
    rollout = await it.advance(rollout)
    assert (rollout.cohort_size, await it.states(rollout)) == (15, {"offered": 6})
    await it.tallies_hold(rollout)
    rollout = await healthy(it, rollout)
    assert (rollout.phase, await it.states(rollout)) == (P.DONE, {"confirmed": 15})
    assert len(await it.parcels(rollout)) == 15
    await it.tallies_hold(rollout)
