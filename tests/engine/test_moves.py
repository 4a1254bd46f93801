"""Moves of endpoints through the engine: who is taken, what the two kinds of rollouts leave alone, and ways back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator import verifier
from orchestrator.core.judging.health import HealthRule, Side
from orchestrator.core.model import Device, Phase, Plan, Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting import cohort
from orchestrator.engine.insight import explain, exposure, moved
from orchestrator.engine.insight.exposure import Question
from orchestrator.engine.reports.recording import record_silence
from orchestrator.engine.rollouts import operations, rollback
from orchestrator.engine.rollouts.rollback import Back
from orchestrator.engine.targeting import preview
from orchestrator.engine.targeting.joining import STONES_S, Joining
from orchestrator.errors import RequestError
from orchestrator.ports import Lane, Tx
from orchestrator.wire import endpoints
from orchestrator.wire.report import Hello, Kind, OwnFacts
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, claims_of, make_artifact, make_report, make_verifier

S, C = UpdateState, Command
DOCUMENT: dict[str, Any] = {"component": endpoints.COMPONENT, "format": endpoints.FORMAT, "name": "endpoints"}
MOVE = make_plan((REST,), (0.9,), name="move", release="move-1", seed=7)
FIRMWARE = make_plan((REST,), (0.9,), name="spring", release="radio-2.0.0", seed=7)


def document(rel: int, **changes: Any) -> Any:
    """Return an artifact of endpoints, other bytes than any firmware."""
    return make_artifact(**(DOCUMENT | {"rel": rel, "hardware": ("m1", "m2")} | changes))


async def release(it: Plant, rel: int = 1, **changes: Any) -> None:
    """Import a document and make the release `move-<rel>` of it."""

    def work(tx: Tx) -> None:
        artifact = document(rel, **changes)
        operations.register_artifact(tx, artifact, it.clock())
        operations.create_release(tx, f"move-{rel}", [artifact.sha256], it.clock())

    await it.write(work)


async def greet(it: Plant, eps: int | None, *names: str, rel: int = 1, boot: str = "b1", **changes: Any) -> None:
    await it.record(hellos=[Hello(1, name, "m1", f"{rel}.0.0", rel, boot, eps=eps, **changes) for name in names])


async def movable(it: Plant, count: int = 4, eps: int = 0) -> list[str]:
    """Register devices that say by which endpoints they go."""
    await it.enrol(count)
    names = [f"d{at:03}" for at in range(count)]
    await greet(it, eps, *names)
    return names


async def moving(it: Plant, plan: Plan = MOVE, rel: int = 1) -> Rollout:
    await release(it, rel)
    return await it.running(plan)


async def device(it: Plant, name: str = "d000") -> Device:
    found = await it.store.read(lambda tx: tx.device(name))
    assert found is not None
    return found


async def has(it: Plant, name: str = "d000") -> tuple[int, str, int | None]:
    found = await device(it, name)
    return found.rel, found.version, found.endpoints


async def go(it: Plant, rollout: Rollout, *kinds: Kind, **changes: Any) -> None:
    """Let all devices of a rollout say these words."""
    for number, kind in enumerate(kinds):
        await it.say(await it.updates(rollout), kind, number, **changes)


async def fall_silent(it: Plant, *rollouts: Rollout) -> None:
    """Let the deadlines of all updates of these rollouts pass."""
    found = [item for rollout in rollouts for item in await it.updates(rollout)]
    it.clock.advance(max(item.deadline_at or 0.0 for item in found) - it.clock())
    await it.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, it.clock(), 100))


async def test_a_move_takes_devices_by_what_they_say_of_their_endpoints(it: Plant) -> None:
    await it.enrol(5)
    await greet(it, 0, "d000", "d001", rel=40)  # their firmware is far above the counter of the document
    await greet(it, 1, "d002")
    await greet(it, None, "d003")
    rollout = await moving(it)
    assert (rollout.cohort_size, rollout.moves) == (2, True)
    assert [item.device_id for item in await it.updates(rollout)] in (["d000", "d001"], ["d001", "d000"])
    reasons = {}
    for name in ("d002", "d003", "d004"):
        told = await it.store.read(partial(explain.explain_device, device_id=name, now=it.clock(), hearing=True))
        [line] = told["rollouts"]
        reasons[name] = [item["code"] for item in line["reasons"]]
    assert reasons == {"d002": ["current"], "d003": ["no_endpoints"], "d004": ["no_endpoints"]}


async def test_the_preview_says_the_same(it: Plant) -> None:
    await it.enrol(3)
    await greet(it, 0, "d000")
    await release(it)
    shown = (await preview.of_plan(it.store, MOVE, it.clock())).summary()
    assert (shown["devices"], shown["unknown"]) == (1, 0)
    assert [(item["code"], item["devices"]) for item in shown["left_out"]] == [("no_endpoints", 2)]


async def test_the_trigger_is_one_that_devices_take_for_their_endpoints_alone(it: Plant) -> None:
    await movable(it, 1)
    await moving(it)
    [(_, bundle, _)] = await it.send()
    assert claims_of(bundle)["comp"] == "endpoints"
    state = make_verifier("d000", rel=40)
    with pytest.raises(verifier.Refused, match="unknown_component"):
        verifier.verify(bundle, state, int(it.clock()))
    both = {**state.components, "endpoints": verifier.Component("endpoints", 0, 0, 0)}
    verdict = verifier.verify(bundle, replace(state, components=both), int(it.clock()))
    assert (verdict.kind, verdict.component.name, verdict.claims["rel"]) == ("install", "endpoints", 1)


async def test_a_confirmed_move_changes_the_endpoints_and_nothing_of_the_firmware(it: Plant) -> None:
    await movable(it, 2)
    rollout = await moving(it)
    await it.send()
    await go(it, rollout, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED, ver="9.9.9")
    assert await has(it) == (1, "1.0.0", 1)
    assert await it.states(rollout) == Counter(confirmed=2)
    assert (await it.advance(rollout)).phase is Phase.DONE
    await it.tallies_hold(rollout)
    assert await it.store.read(moved.count) == {"fleet": 2, "endpoints": [{"rel": 1, "devices": 2}], "unknown": 0}


async def test_a_move_that_was_rolled_back_leaves_the_old_endpoints(it: Plant) -> None:
    await movable(it, 1)
    rollout = await moving(it)
    await it.send()
    await go(it, rollout, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING)
    assert await has(it) == (1, "1.0.0", 1)  # on trial
    await it.say(await it.updates(rollout), Kind.ROLLED_BACK, 9, rel=0, code="endpoint_unreachable")
    assert await has(it) == (1, "1.0.0", 0)
    [update] = await it.updates(rollout)
    assert (update.state, update.code) == (S.ROLLED_BACK, "endpoint_unreachable")


async def test_firmware_reports_leave_the_endpoints_alone(it: Plant) -> None:
    await movable(it, 1)
    rollout = await it.running(FIRMWARE)
    await it.send()
    await go(it, rollout, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED, ver="2.0.0")
    assert await has(it) == (2, "2.0.0", 0)
    assert not rollout.moves


async def test_both_kinds_in_one_batch_keep_apart(it: Plant) -> None:
    await movable(it, 2)
    await it.write(lambda tx: operations.enrol(tx, [operations.NewDevice("d001", "m2")], it.clock()))
    await it.record(hellos=[Hello(1, "d001", "m2", "1.0.0", 1, eps=0)])
    move = await moving(it, replace(MOVE, models=("m2",)))
    spring = await it.running(FIRMWARE)
    [there], [new] = await it.updates(move), await it.updates(spring)
    assert (there.device_id, new.device_id) == ("d001", "d000")
    await it.record(make_report(there, Kind.CONFIRMED, ver="7"), make_report(new, Kind.CONFIRMED, ver="2.0.0"))
    assert (await has(it, "d000"), await has(it, "d001")) == ((2, "2.0.0", 0), (1, "1.0.0", 1))


async def test_a_device_does_one_thing_at_a_time_and_both_in_the_end(it: Plant) -> None:
    await movable(it, 2)
    spring = await it.running(FIRMWARE)
    move = await moving(it)
    assert (await it.states(spring), await it.states(move)) == (Counter(offered=2), Counter(pending=2))
    await it.confirm(await it.updates(spring))
    move = await it.advance(move)
    assert await it.states(move) == Counter(offered=2)
    await it.confirm(await it.updates(move))
    assert (await it.states(spring), await it.states(move)) == (Counter(confirmed=2), Counter(confirmed=2))
    assert await has(it) == (2, "", 1)


_BEFORE: list[tuple[tuple[tuple[Kind, str], ...], UpdateState]] = [
    ((), S.UNREACHED),
    (((Kind.REFUSED, "low_battery"),), S.POSTPONED),
    (((Kind.REFUSED, "wrong_hardware"),), S.REFUSED),
    (((Kind.ACCEPTED, ""), (Kind.FAILED, "link_lost")), S.RETRYING),
]


@pytest.mark.parametrize(("said", "state"), _BEFORE)
async def test_a_late_report_counts_while_the_other_kind_is_under_way(
    it: Plant, said: tuple[tuple[Kind, str], ...], state: UpdateState
) -> None:
    """Its trigger was good all the time: that the device is busy with the other kind makes its word no less true."""
    await movable(it, 2)
    spring = await it.running(FIRMWARE)
    await it.send()
    for number, (kind, code) in enumerate(said):
        await go(it, spring, kind, code=code, rel=1, boot=f"b{number}")
    if not said:
        await fall_silent(it, spring)
    assert await it.states(spring) == Counter({state: 2})
    move = await moving(it)
    assert await it.states(move) == Counter(offered=2)
    await go(it, spring, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, rel=1, boot="b9")
    assert (await it.states(spring), await it.states(move)) == (Counter(installed=2), Counter(offered=2))
    await fall_silent(it, spring, move)
    assert (await it.states(spring), await it.states(move)) == (Counter(lost=2), Counter(unreached=2))
    for rollout in (spring, move):
        await it.tallies_hold(rollout)


async def test_a_late_report_of_who_said_hello_first_counts_while_the_other_kind_is_under_way(it: Plant) -> None:
    """The hello made it pending again, and it waits there until the move is over."""
    names = await movable(it, 2)
    spring = await it.running(FIRMWARE)
    await it.send()
    await fall_silent(it, spring)
    move = await moving(it)
    await greet(it, 0, *names)
    assert (await it.states(spring), await it.states(move)) == (Counter(pending=2), Counter(offered=2))
    await go(it, spring, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, rel=1, boot="b9")
    assert (await it.states(spring), await it.states(move)) == (Counter(installed=2), Counter(offered=2))
    await it.tallies_hold(spring)


async def test_a_device_that_is_busy_with_both_kinds_is_free_when_both_are_over(it: Plant) -> None:
    await movable(it, 1)
    spring = await it.running(FIRMWARE)
    await it.send()
    await fall_silent(it, spring)
    move = await moving(it)
    await go(it, spring, Kind.INSTALLED)
    again = await moving(it, replace(MOVE, name="move-again", release="move-2"), rel=2)
    assert await it.states(move) == Counter(superseded=1)
    assert await it.states(again) == Counter(pending=1)
    await it.confirm(await it.updates(spring))
    await it.advance(again)
    assert (await it.states(spring), await it.states(again)) == (Counter(confirmed=1), Counter(offered=1))


async def test_a_newer_move_takes_nothing_from_a_firmware_rollout_nor_the_other_way_round(it: Plant) -> None:
    await movable(it, 3)
    older = await it.running(replace(FIRMWARE, in_flight=1))
    move = await moving(it)
    newer = await it.running(make_plan((REST,), (0.9,), name="summer", release="radio-3.0.0"), rel=3)
    assert await it.states(older) == Counter(superseded=3)  # by the newer firmware
    assert (await it.states(move), await it.states(newer)) == (
        Counter(offered=2, pending=1),
        Counter(offered=1, pending=2),
    )


async def test_a_newer_move_takes_over_what_an_older_one_has_not_begun(it: Plant) -> None:
    await movable(it, 2)
    older = await moving(it, replace(MOVE, in_flight=1))
    await moving(it, replace(MOVE, name="move-again", release="move-2"), rel=2)
    assert await it.states(older) == Counter(superseded=2)


async def test_the_word_of_a_device_counts_and_no_hello_takes_its_place(it: Plant) -> None:
    """No boot lies between old and new endpoints, by which a hello could be judged."""
    await movable(it, 1)
    rollout = await moving(it)
    await it.send()
    await go(it, rollout, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, rel=0, boots=10)
    for eps in (1, 0, 7, None):
        await greet(it, eps, "d000", boots=12, boot="b9", facts=OwnFacts(uptime=5000))
        [update] = await it.updates(rollout)
        assert (update.state, update.code) == (S.INSTALLED, "")
    it.clock.advance((update.deadline_at or 0.0) - it.clock())
    await greet(it, 1, "d000", boots=12, boot="b9", facts=OwnFacts(uptime=5000))
    await it.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, it.clock(), 100))
    assert await it.states(rollout) == Counter(lost=1)


@pytest.mark.parametrize(("eps", "state"), [(1, S.CONFIRMED), (None, S.CONFIRMED), (0, S.FAILED)])
async def test_a_device_that_left_its_endpoints_again_relapses(it: Plant, eps: int | None, state: UpdateState) -> None:
    await movable(it, 4)
    plan = replace(MOVE, stages=make_plan((1, REST), (0.9, 0.9)).stages)
    rollout = await moving(it, plan)
    [first] = await it.updates(rollout)
    await it.confirm([first])
    rollout = await it.advance(rollout)
    assert rollout.phase is Phase.RUNNING
    await greet(it, eps, first.device_id, boot="b2", rel=5)  # another firmware is no relapse
    [update] = [item for item in await it.updates(rollout) if item.id == first.id]
    assert update.state is state
    await it.tallies_hold(rollout)


async def test_a_later_move_does_not_excuse_firmware_that_a_device_left(it: Plant) -> None:
    await movable(it, 4)
    plan = replace(FIRMWARE, stages=make_plan((1, REST), (0.9, 0.9)).stages)
    rollout = await it.running(plan)
    [first] = await it.updates(rollout)
    await it.confirm([first])
    await it.advance(rollout)
    move = await moving(it)
    [there] = [item for item in await it.updates(move) if item.device_id == first.device_id]
    await it.confirm([there])
    await greet(it, 1, first.device_id, boot="b2", rel=1)
    [update] = [item for item in await it.updates(rollout) if item.id == first.id]
    assert (update.state, update.code) == (S.FAILED, "drifted")


async def test_what_a_user_said_is_of_the_firmware_that_runs_whatever_a_move_reports(it: Plant) -> None:
    await movable(it, 1)
    await greet(it, 0, "d000", facts=OwnFacts(agreed=True))
    rollout = await moving(it)
    [update] = await it.updates(rollout)
    await it.record(make_report(update, Kind.ACCEPTED, rel=0, facts=OwnFacts(bat=50, agreed=True)))
    said = (await it.store.read(lambda tx: tx.situations(["d000"])))["d000"]
    assert (said.wish_rel, said.wish.agreed) == (1, True)
    assert said.condition.battery_pct is not None


async def test_health_on_trial_is_judged_by_the_endpoints(it: Plant) -> None:
    await movable(it, 1)
    rollout = await moving(it, replace(MOVE, health=(HealthRule("loss", Side.BELOW, 0.1),)))
    await go(it, rollout, Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING)
    await greet(it, 0, "d000", rel=1, metrics={"loss": 0.5})  # said of the old ones
    assert await it.states(rollout) == Counter(running=1)
    await greet(it, 1, "d000", rel=9, metrics={"loss": 0.5})
    assert await it.states(rollout) == Counter(failed=1)


async def test_a_move_goes_back_like_any_release(it: Plant) -> None:
    await movable(it, 4)
    await release(it, 1, leaves=(2,))
    done = await moving(it, replace(MOVE, release="move-2", in_flight=100), rel=2)
    await it.confirm(await it.updates(done))
    assert (await it.advance(done)).phase is Phase.DONE
    await it.create(FIRMWARE)  # a release of firmware with a lower counter is none to go back to
    back = await it.write(lambda tx: rollback.draft(tx, Back("move", "", "", "lost packets"), "ann", it.clock()))
    assert (back.plan.release, back.plan.leaves, back.moves) == ("move-1", 2, True)
    await greet(it, 7, "d003")
    await it.command(back, C.START)
    running = await it.advance(back)
    assert running.cohort_size == 3
    [first, *_] = await it.send()
    assert claims_of(first[1])["act"] == "rollback"
    await it.confirm(await it.updates(running))
    assert await has(it, (await it.updates(running))[0].device_id) == (1, "1.0.0", 1)


async def test_devices_that_can_be_moved_later_join_an_open_cohort(it: Plant) -> None:
    await it.enrol(2)
    await greet(it, 0, "d000")
    rollout = await moving(it, replace(MOVE, open_cohort=True))
    joining = Joining(it.store, it.clock, lambda _: None)
    assert (await joining.look(), rollout.cohort_size) == (0, 1)
    await greet(it, 0, "d001", rel=2)
    it.clock.advance(STONES_S)
    assert await joining.look() == 1


async def test_a_release_brings_one_of_both(it: Plant) -> None:
    firmware, moves = make_artifact(1, ("m1",)), document(1, hardware=("m2",), version="1.0.0")

    def work(tx: Tx) -> None:
        for artifact in (firmware, moves):
            operations.register_artifact(tx, artifact, 0.0)
        operations.create_release(tx, "mixed", [firmware.sha256, moves.sha256], 0.0)

    with pytest.raises(RequestError, match="firmware or endpoints, not both"):
        await it.write(work)


async def test_a_move_mends_nothing(it: Plant) -> None:
    await movable(it, 1)
    await release(it)
    for mends in ({"fixes_below": 1}, {"advisories": ("CVE-2026-1234",)}):
        with pytest.raises(RequestError, match="mend no firmware"):
            await it.create(replace(MOVE, **mends))
    await it.create(MOVE)
    with pytest.raises(RequestError, match="mend no firmware"):
        await it.store.read(lambda tx: exposure.count(tx, Question(rollout="move"), 0.0))
    found = await it.store.read(lambda tx: exposure.count(tx, Question(below_rel=2), 0.0))
    assert found["vulnerable"] == 1  # by its firmware


def test_what_a_device_has_is_known_or_not() -> None:
    known = Device("d", "m1", (), "1.0.0", 4, 0.0, None, None, endpoints=2)
    assert (cohort.has(known, moves=False), cohort.has(known, moves=True)) == (4, 2)
    silent = replace(known, version="", rel=0, endpoints=None)
    assert (cohort.has(silent, moves=False), cohort.has(silent, moves=True)) == (None, None)
    assert cohort.has(replace(silent, version="1.0.0"), moves=False) == 0
