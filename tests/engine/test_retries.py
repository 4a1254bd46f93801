"""Attempts after failures, by themselves and by a person, and devices that failed too often."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.core.model import Phase, UpdateState
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.rollout import Command
from orchestrator.engine.reports.recording import MOST_OFFERS
from orchestrator.engine.rollouts import quarantine
from orchestrator.errors import NotFoundError
from orchestrator.ports import EXPOSED, DeliveryKind
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, make_report

S, C = UpdateState, Command
POLICY = RetryPolicy(transient=Retry(attempts=2, base_s=100.0, jitter=0.0))
PLAN = make_plan((REST,), retry=POLICY)


async def attempts(it: Plant) -> list[str]:
    """Return what is now published as triggers, by the attempts that they name."""
    return [topic.split("/")[3] for topic, _, _ in await it.send()]


async def test_a_failure_that_passes_gets_another_trigger_after_its_wait(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    assert await attempts(it) == ["d000"]
    [update] = await it.updates(rollout)
    await it.say([update], Kind.FAILED, code="link_lost")
    rollout = await it.advance(rollout)
    assert (rollout.phase, await it.states(rollout)) == (Phase.RUNNING, Counter(retrying=1))
    await it.recorder.judge_silence_once()
    assert await it.states(rollout) == Counter(retrying=1)
    it.clock.advance(100.0)
    assert await it.recorder.judge_silence_once() == 1
    await it.advance(rollout)
    assert await attempts(it) == ["d000"]
    [again] = await it.updates(rollout, S.OFFERED)
    assert again.attempt == 2
    [first, second] = await it.parcels(rollout)
    assert (first.attempt, second.attempt, second.state in EXPOSED) == (1, 2, True)
    await it.tallies_hold(rollout)
    await it.confirm([again])
    assert (await it.advance(rollout)).phase is Phase.DONE


async def test_what_the_first_attempt_says_late_does_not_touch_the_second(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    await it.send()
    [update] = await it.updates(rollout)
    await it.say([update], Kind.FAILED, code="link_lost")
    it.clock.advance(100.0)
    await it.recorder.judge_silence_once()
    done = await it.say([update], Kind.ACCEPTED, n=7)
    assert done.ignored == Counter(other_attempt=1)
    assert await it.states(rollout) == Counter(pending=1)


async def test_the_last_attempt_is_a_failure(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    await it.send()
    for attempt in (1, 2):
        [update] = await it.updates(rollout)
        assert update.attempt == attempt
        await it.say([update], Kind.FAILED, code="link_lost")
        it.clock.advance(100.0)
        await it.recorder.judge_silence_once()
        await it.advance(rollout)
        await it.send()
    assert await it.states(rollout) == Counter(failed=1)
    await it.tallies_hold(rollout)


async def test_a_halt_leaves_who_would_try_again_alone_and_a_resume_goes_on_with_them(it: Plant) -> None:
    await it.enrol(2)
    rollout = await it.running(PLAN)
    await it.send()
    first, second = await it.updates(rollout)
    await it.say([first], Kind.FAILED, code="link_lost")
    await it.command(rollout, C.HALT)
    await it.say([second], Kind.RECALLED, n=9)
    it.clock.advance(100.0)
    await it.recorder.judge_silence_once()
    assert await it.states(rollout) == Counter(pending=1, recalled=1)
    await it.send()
    await it.command(rollout, C.RESUME)
    await it.advance(rollout)
    assert {item.attempt for item in await it.updates(rollout, S.OFFERED)} == {1, 2}
    assert len(await attempts(it)) == 2


async def test_nobody_tries_again_what_is_over(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    await it.send()
    await it.say(await it.updates(rollout), Kind.FAILED, code="link_lost")
    await it.command(rollout, C.ABORT)
    it.clock.advance(100.0)
    assert await it.recorder.judge_silence_once() == 1
    assert await it.recorder.judge_silence_once() == 0
    assert await it.states(rollout) == Counter(retrying=1)


async def test_a_person_gives_failed_devices_another_attempt_and_the_failure_stays(it: Plant) -> None:
    await it.enrol(40)
    rollout = await it.running(make_plan((REST,), in_flight=40))
    await it.send()
    bad, *good = await it.updates(rollout, S.OFFERED)
    await it.say([bad], Kind.FAILED, code="hash_mismatch")
    decision = await it.conductor.command("spring", C.RETRY, actor="ann", reason="new mirror")
    assert decision.reason.text == "another attempt for 1 device: new mirror"
    repeated = await it.conductor.command("spring", C.RETRY, actor="ben", reason="me too")
    assert repeated.reason.code == "unchanged"
    await it.tallies_hold(rollout)
    events = await it.store.read(lambda tx: tx.events(rollout.id))
    assert [(item.code, item.actor) for item in events][-1] == ("operator_retry", "ann")
    await it.confirm(good)
    await it.advance(rollout)
    await it.send()
    [again] = [item for item in await it.updates(rollout, S.OFFERED) if item.device_id == bad.device_id]
    assert (again.attempt, again.failed_epoch) == (2, 0)
    tally = await it.store.read(lambda tx: tx.tally(rollout.id))
    assert sum(count for key, count in tally.items() if key.state == "retried") == 1


async def fail(it: Plant, name: str, rel: int) -> None:
    """Let one more rollout fail on the only device."""
    rollout = await it.running(replace(PLAN, name=name, release=f"radio-{rel}.0.0"), rel=rel)
    await it.send()
    await it.say(await it.updates(rollout, S.OFFERED), Kind.FAILED, code="hash_mismatch")


async def test_a_device_that_failed_in_three_rollouts_is_left_out_until_a_person_lets_it_back(it: Plant) -> None:
    await it.enrol(1)
    for rel, name in enumerate(("one", "two", "three"), start=2):
        assert (await held(it)) == ""
        await fail(it, name, rel)
    assert await held(it) == "failed in its last 3 rollouts, at last with hash_mismatch"
    draft = await it.create(replace(PLAN, name="four", release="radio-5.0.0"), rel=5)
    assert await it.conductor.audience("four") == 0
    released = await it.write(lambda tx: quarantine.leave(tx, ["d000"], "new board", it.clock(), actor="ann"))
    assert (released, await held(it), await it.conductor.audience("four")) == (1, "", 1)
    await it.command(draft, C.START)
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 1000))
    acts = [(item.action, item.actor, item.object) for item in entries if item.action.startswith("devices.")]
    assert acts[-2:] == [("devices.quarantined", "orchestrator", "d000"), ("devices.released", "ann", "d000")]


async def test_a_success_between_failures_begins_the_count_anew(it: Plant) -> None:
    await it.enrol(1)
    for rel, name in enumerate(("one", "two"), start=2):
        await fail(it, name, rel)
    rollout = await it.running(replace(PLAN, name="good", release="radio-4.0.0"), rel=4)
    await it.send()
    await it.confirm(await it.updates(rollout, S.OFFERED))
    for rel, name in enumerate(("three", "four"), start=5):
        await fail(it, name, rel)
    assert await held(it) == ""


async def test_a_quarantine_closes_what_waits_and_leaves_what_has_begun(it: Plant) -> None:
    await it.enrol(12)
    rollout = await it.running(make_plan((REST,), in_flight=10))
    assert await it.states(rollout) == Counter(offered=10, pending=2)
    everybody = [item.device_id for item in await it.updates(rollout)]
    entered = await it.write(lambda tx: quarantine.enter(tx, everybody, "recalled by sales", it.clock(), actor="ann"))
    again = await it.write(lambda tx: quarantine.enter(tx, everybody, "me too", it.clock(), actor="ben"))
    assert (entered, again) == (12, 0)
    assert await it.states(rollout) == Counter(offered=10, superseded=2)
    assert await held(it) == "recalled by sales"
    await it.tallies_hold(rollout)


async def test_a_device_that_nobody_knows_cannot_be_quarantined(it: Plant) -> None:
    await it.enrol(1)
    with pytest.raises(NotFoundError, match="'nobody'"):
        await it.write(lambda tx: quarantine.enter(tx, ["d000", "nobody"], "why", 0.0, actor="ann"))
    assert await held(it) == ""


async def held(it: Plant) -> str:
    device = await it.store.read(lambda tx: tx.device("d000"))
    assert device is not None
    return device.quarantine


async def test_a_report_of_a_failure_that_repeats_counts_once(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    await it.send()
    [update] = await it.updates(rollout)
    report = make_report(update, Kind.FAILED, code="link_lost")
    await it.record(report, report)
    await it.record(report)
    [waits] = await it.updates(rollout)
    assert (waits.state, waits.attempt) == (S.RETRYING, 1)


async def test_a_refusal_of_the_token_gets_a_trigger_made_anew(it: Plant) -> None:
    await it.enrol(2)
    rollout = await it.running(PLAN)
    await it.send()
    stale, wrong = await it.updates(rollout)
    await it.say([stale], Kind.REFUSED, code="stale_seq")
    await it.say([wrong], Kind.REFUSED, code="wrong_hardware")
    it.clock.advance(100.0)
    await it.recorder.judge_silence_once()
    assert await it.states(rollout) == Counter(pending=1, refused=1)
    await it.advance(rollout)
    assert await attempts(it) == [stale.device_id]
    await it.tallies_hold(rollout)


@pytest.mark.parametrize("code", ["wrong_hardware", "stale_seq"])
@pytest.mark.parametrize("order", ["refused halt recalled resume", "halt refused recalled resume", "halt recalled"])
@pytest.mark.parametrize("late", [False, True])
async def test_who_refused_for_good_is_not_offered_it_again_after_a_recall(
    it: Plant, order: str, code: str, late: bool
) -> None:
    """The recall reaches everybody who may still follow the trigger, and everybody answers it."""
    plan = replace(PLAN, retry=replace(POLICY, transient=Retry(attempts=1, base_s=100.0)))
    await it.enrol(2)
    rollout = await it.running(plan)
    await it.send()
    [one, other] = await it.updates(rollout)
    steps = order.replace("recalled resume", "resume recalled") if late else order
    for n, step in enumerate(steps.split()):
        match step:
            case "refused":
                await it.say([one], Kind.REFUSED, n=n, code=code)
            case "recalled":
                await it.say([one, other], Kind.RECALLED, n=n)
            case _:
                await it.command(rollout, C(step))
    if "refused" not in order:  # its refusal is the last to arrive
        await it.say([one], Kind.REFUSED, n=99, code=code)
        await it.command(rollout, C.RESUME)
    assert await it.states(rollout) == Counter(pending=1, recalled=1)
    assert [item.device_id for item in await it.updates(rollout, S.PENDING)] == [other.device_id]
    await it.advance(rollout)
    assert await it.states(rollout) == Counter(offered=1, recalled=1)
    await it.tallies_hold(rollout)


async def test_who_refused_and_began_all_the_same_is_offered_it_again_after_a_recall(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    await it.send()
    updates = await it.updates(rollout)
    await it.say(updates, Kind.REFUSED, n=1, code="requirement_unmet")
    await it.say(updates, Kind.ACCEPTED, n=2)
    await it.command(rollout, C.HALT)
    await it.say(updates, Kind.RECALLED, n=3)
    await it.command(rollout, C.RESUME)
    assert await it.states(rollout) == Counter(pending=1)


async def test_giving_up_for_new_keys_is_believed_only_if_there_are_newer_ones(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    await it.send()
    updates = await it.updates(rollout)
    await it.say(updates, Kind.RECALLED, n=1, code="new_keys")
    assert await it.states(rollout) == Counter(recalled=1)


async def test_a_newer_rollout_recalls_a_trigger_that_may_still_wait_for_an_absent_device(it: Plant) -> None:
    await it.enrol(1)
    old = await it.running(PLAN)
    await it.send()
    it.clock.advance(PLAN.deadlines.accept_s)
    it.hearing()
    await it.recorder.judge_silence_once()
    assert await it.states(old) == Counter(unreached=1)
    await it.running(replace(PLAN, name="newer", release="radio-3.0.0"), rel=3)
    assert await it.states(old) == Counter(superseded=1)
    assert len(await it.parcels(old, DeliveryKind.CANCEL)) == 1


async def test_a_newer_rollout_recalls_the_trigger_of_a_device_that_is_back_and_waits_for_another_one(
    it: Plant,
) -> None:
    await it.enrol(2)
    old = await it.running(PLAN)
    await it.send()
    it.clock.advance(PLAN.deadlines.accept_s)
    it.hearing()
    await it.recorder.judge_silence_once()
    await it.command(old, Command.PAUSE)
    await it.record(hellos=[Hello(v=1, dev="d000", model="m1", rel=1)])
    await it.enrol(1, prefix="e")
    assert await it.states(old) == Counter(pending=1, unreached=1)
    await it.running(replace(PLAN, name="newer", release="radio-3.0.0"), rel=3)
    assert await it.states(old) == Counter(superseded=2)
    assert [item.device_id for item in await it.parcels(old, DeliveryKind.CANCEL)] == ["d000", "d001"]
    assert [item.attempt for item in await it.parcels(old, DeliveryKind.CANCEL)] == [1, 1]


@pytest.mark.parametrize("way", ["hello", "poll"])
async def test_a_device_that_greets_and_never_answers_is_not_offered_it_for_ever(it: Plant, way: str) -> None:
    await it.enrol(1)
    rollout = await it.running(PLAN)
    for _ in range(MOST_OFFERS):
        assert await it.states(rollout) == Counter(offered=1)
        await it.send()
        it.clock.advance(PLAN.deadlines.accept_s)
        it.hearing()
        await it.recorder.judge_silence_once()
        if way == "hello":
            await it.record(hellos=[Hello(v=1, dev="d000", model="m1", rel=1)])
        else:
            await it.poll("d000")
        await it.advance(rollout)
    assert await it.states(rollout) == Counter(unreached=1)
    assert (await it.rollout(rollout.id)).phase is Phase.INCONCLUSIVE
