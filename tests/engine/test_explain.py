"""What is explained: every state has a sentence, every "why not" all its reasons, every gate its numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.model import Phase, Rollout, UpdateState
from orchestrator.core.pace.budget import Budget
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.pace.requirement import Requirements
from orchestrator.core.pace.window import Freeze, Windows
from orchestrator.core.rollout import TABLE, Command
from orchestrator.core.trust.approval import Matter, Proposal, Vote
from orchestrator.engine.insight import explain, views
from orchestrator.engine.rollouts import quarantine
from orchestrator.engine.rollouts.operations import NewDevice, create_release, enrol
from orchestrator.errors import NotFoundError
from orchestrator.ports import Event
from orchestrator.wire.report import Hello, Kind
from orchestrator.wire.report import State as Online
from tests.support.builders import REST, make_plan, make_stage_plan
from tests.support.factory import Plant, make_artifact, stock

S, C = UpdateState, Command
View = dict[str, Any]


async def explained(it: Plant, name: str = "spring") -> View:
    found = await it.store.read(lambda tx: explain.explain_rollout(tx, name, it.clock(), hearing=it.hearing()))
    json.dumps(found)
    return found


async def why(it: Plant, device_id: str) -> list[View]:
    found = await it.store.read(lambda tx: explain.explain_device(tx, device_id, it.clock(), hearing=it.hearing()))
    json.dumps(found)
    rollouts: list[View] = found["rollouts"]
    return rollouts


# Rollouts


async def test_a_draft_says_what_a_person_may_do(it: Plant) -> None:
    await it.create(make_plan((5, REST)))
    found = await explained(it)
    assert found["next"] == ["a person may: start, abort"]
    assert (found["bound"], found["lost"], found["strata"]) == (None, None, [])
    assert [item["code"] for item in found["waits_for"]] == ["created"]


async def test_what_would_halt_and_what_is_waited_for_is_said(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST), soak_s=60))
    assert any("it halts at 2 failures in the 10 devices" in line for line in (await explained(it))["next"])
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)
    found = await explained(it)
    assert (found["code"], found["wake_at"]) == ("soaking", it.clock() + 60)
    assert found["next"][-1] == "it goes on by itself when the soak is over"
    it.bus.go_down()
    assert (await explained(it))["code"] == "deaf"


async def test_a_halted_and_a_finished_rollout_say_what_a_person_may_do(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.command(rollout, C.HALT, "it smells")
    found = await explained(it)
    assert (found["because"], found["code"]) == ("it smells", "operator_halt")
    assert found["next"][0] == "a person may: resume, abort, retry"
    assert "half the alpha" in found["next"][1]
    assert [(event["code"], event["actor"]) for event in found["events"]][-1] == ("operator_halt", "ann")
    await it.command(rollout, C.ABORT)
    assert (await explained(it))["next"] == ["nothing: it is over"]


@pytest.mark.parametrize("phase", Phase)
async def test_every_phase_can_be_shown(it: Plant, phase: Phase) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.write(lambda tx: tx.save_rollout(replace(rollout, phase=phase), None))
    found = await explained(it)
    assert found["phase"] == phase
    [said, *_] = found["next"]
    assert all(command in said for command in TABLE[phase])


async def test_evidence_that_can_never_halt_is_not_promised(it: Plant) -> None:
    await it.enrol(1)
    await it.running(make_plan((REST,)))
    assert not any("halts at" in line for line in (await explained(it))["next"])


# Devices


async def put(it: Plant, rollout: Rollout, state: UpdateState, code: str) -> None:
    [update] = await it.updates(rollout)
    await it.write(lambda tx: tx.save_updates([update._replace(state=state, code=code)]))


@pytest.mark.parametrize("state", UpdateState)
async def test_every_state_has_a_sentence(it: Plant, state: UpdateState) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await put(it, rollout, state, "no_space")
    [view] = await why(it, "d000")
    assert view["state"] == state
    assert len(view["because"]) > 10
    assert "{" not in view["because"]
    with_code = state in (S.UNREACHED, S.REFUSED, S.POSTPONED, S.RETRYING, S.FAILED, S.ROLLED_BACK)
    assert ("no_space" in view["because"]) is with_code
    await put(it, rollout, state, "")
    [view] = await why(it, "d000")
    assert ("no reason given" in view["because"]) is (with_code and state is not S.UNREACHED)


async def test_a_device_is_explained_with_its_history(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.say(await it.updates(rollout), Kind.ACCEPTED, msg="on my way")
    await it.command(rollout, C.ABORT)
    [view] = await why(it, "d000")
    assert (view["phase"], view["triggered"]) == ("aborted", 1)
    assert [(item["kind"], item["state"], item["seq"]) for item in view["deliveries"]] == [
        ("install", "sent", 1),
        ("cancel", "planned", None),
    ]
    assert [(item["kind"], item["text"], item["boot"], item["n"]) for item in view["reports"]] == [
        ("accepted", "on my way", "b1", 0)
    ]
    shown = await it.store.read(lambda tx: views.device_view(tx, "d000"))
    assert (shown["id"], shown["model"], shown["rel"], shown["online"]) == ("d000", "m1", 1, None)
    assert [(item["rollout"], item["state"]) for item in shown["updates"]] == [("spring", "recalling")]


async def test_a_device_without_an_update_is_told_why(it: Plant) -> None:
    fleet = [
        NewDevice("other-model", "m9"),
        NewDevice("other-choice", "m2", ("north",)),
        NewDevice("other-group", "m1", ("south",)),
        NewDevice("newer", "m1", ("north",), "2.0.0", 2),
        NewDevice("fits", "m1", ("north",)),
    ]

    await it.write(lambda tx: enrol(tx, fleet, it.clock()))
    await it.write(lambda tx: stock(tx, 2, ("m1", "m2")))
    plan = make_plan((1, REST), models=("m1",), groups=("north",))
    rollout = await it.create(plan)
    reasons = {item.id: (await why(it, item.id))[0]["because"] for item in fleet}
    assert reasons == {
        "other-model": "the release has no artifact for m9",
        "other-choice": "the plan takes m1 only",
        "other-group": "it is in none of the groups north",
        "newer": "it runs release counter 2 already; the release has 2",
        "fits": "the rollout is not started",
    }
    await it.write(lambda tx: enrol(tx, [NewDevice("second", "m1", ("north",))], it.clock()))
    await it.command(rollout, C.START)
    it.clock.advance(30)
    await it.advance(rollout)
    it.clock.advance(1)
    await it.write(lambda tx: enrol(tx, [NewDevice("late", "m1", ("north",))], it.clock()))
    assert (await why(it, "late"))[0]["because"] == "it was registered after the cohort was fixed"
    [first] = await it.updates(rollout)
    waiting = "second" if first.device_id == "fits" else "fits"
    assert (await why(it, waiting))[0]["because"] == "its turn has not come: stage 1 of 2 is open"
    await it.command(rollout, C.ABORT)
    assert await why(it, waiting) == []


async def test_what_does_not_exist_is_not_explained(it: Plant) -> None:
    with pytest.raises(NotFoundError, match="no device 'none'"):
        await why(it, "none")
    with pytest.raises(NotFoundError, match="no rollout named 'none'"):
        await explained(it, "none")


# Every reason, one device each, and many at once


async def codes(it: Plant, device_id: str, rollout: str = "spring") -> dict[str, float | None]:
    [found] = [item for item in await why(it, device_id) if item["rollout"] == rollout]
    return {item["code"]: item["may_change_at"] for item in found["reasons"]}


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (NewDevice("x", "m9", ("north",)), {"no_artifact", "model", "stage"}),
        (NewDevice("x", "m2", ("north",)), {"model"}),
        (NewDevice("x", "m1", ("south",)), {"group"}),
        (NewDevice("x", "m1", ("north",), "2.0.0", 6), {"current"}),
        (NewDevice("x", "m1", ("north",), "0.1.0", 1), {"from_too_low"}),
        (NewDevice("odd", "m1", ("north",)), {"not_selected"}),
        (NewDevice("x", "m1", ("north",)), {"stage_not_open"}),
        (NewDevice("odd", "m9", ("south",), "9.0", 9), {"current", "no_artifact", "model", "group", "not_selected"}),
    ],
)
async def test_who_is_not_taken_in_is_told_every_reason(it: Plant, device: NewDevice, expected: set[str]) -> None:
    first = NewDevice("first", "m1", ("north", "lab"), "1.0.0", 3)
    await it.write(lambda tx: enrol(tx, [first, device], it.clock()))
    for model in ("m1", "m2"):
        artifact = make_artifact(6, (model,), min_from=2)
        await it.write(lambda tx, made=artifact: tx.add_artifact(made, 0.0))
    hashes = [make_artifact(6, (model,), min_from=2).sha256 for model in ("m1", "m2")]
    await it.write(lambda tx: create_release(tx, "radio-6", hashes, 0.0))
    lab = replace(make_stage_plan(1), group="lab")
    plan = make_plan((REST,), release="radio-6", models=("m1",), groups=("north",), select='id != "odd"')
    await it.running(replace(plan, stages=(lab, *plan.stages)))
    found = await codes(it, device.id)
    assert set(found) == expected - {"stage"}
    assert set(found.values()) == {None}


async def test_who_turns_out_to_be_too_old_after_it_was_taken_in_is_held_and_told_so_once(it: Plant) -> None:
    names = ("x", "y")
    await it.write(
        lambda tx: enrol(tx, [NewDevice(name, "m1") for name in names], it.clock())
    )  # running who knows what
    old = make_artifact(6, min_from=2)
    await it.write(lambda tx: tx.add_artifact(old, 0.0))
    await it.write(lambda tx: create_release(tx, "radio-6", [old.sha256], 0.0))
    rollout = await it.running(replace(make_plan((REST,), release="radio-6"), in_flight=1))
    [first] = await it.updates(rollout, S.OFFERED)
    [other] = await it.updates(rollout, S.PENDING)
    await it.record(hellos=[Hello(1, other.device_id, "m1", "1.0.0", 1)])
    await it.confirm([first])
    rollout = await it.advance(rollout)
    assert await it.states(rollout) == {"confirmed": 1, "pending": 1}
    assert await codes(it, other.device_id) == {"from_too_low": None}
    await it.command(rollout, C.PAUSE)
    [found] = await why(it, other.device_id)
    assert [item["code"] for item in found["reasons"]] == ["from_too_low", "paused"]


async def test_who_came_later_or_is_quarantined_is_told_so(it: Plant) -> None:
    await it.enrol(2)
    await it.running(make_plan((1, REST)))
    it.clock.advance(1)
    await it.enrol(1, prefix="late")
    await it.write(lambda tx: tx.quarantine(["late000"], "it smokes", it.clock()))
    assert set(await codes(it, "late000")) == {"late", "quarantined"}


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.HALTED, Phase.INCONCLUSIVE])
async def test_a_rollout_that_does_not_run_is_a_reason(it: Plant, phase: Phase) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((1, REST)))
    await it.write(lambda tx: tx.save_rollout(replace(rollout, phase=phase), None))
    [taken] = await it.updates(rollout)
    other = next(name for name in ("d000", "d001") if name != taken.device_id)
    assert set(await codes(it, other)) == {"stage_not_open", phase.value}
    await it.write(lambda tx: tx.save_updates([taken._replace(state=S.PENDING)]))
    assert set(await codes(it, taken.device_id)) == {phase.value}


async def test_a_draft_and_a_cohort_that_is_counted_are_reasons(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.create(make_plan((REST,)))
    assert set(await codes(it, "d000")) == {"not_started"}
    await it.write(lambda tx: tx.save_rollout(replace(rollout, phase=Phase.PREPARING), None))
    assert set(await codes(it, "d000")) == {"preparing"}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (S.OFFERED, {"offered": 99.0}),
        (S.ACCEPTED, {"accepted": 99.0}),
        (S.INSTALLED, {"installed": 99.0}),
        (S.RETRYING, {"retrying": 99.0}),
        (S.POSTPONED, {"postponed": 99.0}),
        (S.UNREACHED, {"unreached": None}),
        (S.REFUSED, {"refused": None}),
        (S.FAILED, {"failed": None}),
        (S.SUPERSEDED, {"superseded": None}),
        (S.CONFIRMED, {}),
    ],
)
async def test_every_state_says_what_it_waits_for(
    it: Plant, state: UpdateState, expected: dict[str, float | None]
) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    [update] = await it.updates(rollout)
    deadline_at = 99.0 if 99.0 in expected.values() else None
    await it.write(lambda tx: tx.save_updates([update._replace(state=state, deadline_at=deadline_at)]))
    assert await codes(it, "d000") == expected


async def test_who_was_kept_from_the_release_is_told_what_keeps_it(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), require=Requirements(battery_pct=50)))
    await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1, bat=5)])
    it.clock.advance(rollout.plan.deadlines.accept_s)
    rollout = await it.advance(rollout)
    [view] = await why(it, "d000")
    assert (view["state"], view["because"]) == (
        "unreached",
        "it was not offered the release: it was held for too long (battery); it will be once nothing holds it",
    )
    assert [(item["code"], item["may_change_at"]) for item in view["reasons"]] == [
        ("unreached", None),
        ("inconclusive", None),
        ("battery", None),
    ]
    assert view["reasons"][2]["text"] == "its battery is at 5 %, and must be at 50 %"


async def test_who_left_an_offer_unanswered_is_told_so(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    it.clock.advance(rollout.plan.deadlines.accept_s)
    it.hearing()
    await it.recorder.judge_silence_once()
    [view] = await why(it, "d000")
    assert view["because"].startswith("it did not answer before the accept deadline")
    assert [item["code"] for item in view["reasons"]] == ["unreached"]


async def test_a_quarantine_is_not_called_a_newer_rollout(it: Plant) -> None:
    await it.enrol(11)
    rollout = await it.running(make_plan((REST,), in_flight=10))
    [waits] = await it.updates(rollout, S.PENDING)
    await it.write(lambda tx: quarantine.enter(tx, [waits.device_id], "it smokes", it.clock(), actor="ann"))
    [view] = await why(it, waits.device_id)
    assert (view["state"], view["because"]) == ("superseded", "it came into quarantine, which closed its update")


async def test_who_waits_for_an_offer_is_told_what_the_rollout_waits_for(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((REST,), in_flight=5))
    waiting = (await it.updates(rollout, S.PENDING))[-1].device_id
    assert await codes(it, waiting) == {"slots_taken": None}
    it.bus.go_down()
    assert await codes(it, waiting) == {"deaf": None}


async def test_who_is_next_in_line_is_told_so(it: Plant) -> None:
    await it.enrol(12)
    rollout = await it.running(make_plan((REST,), in_flight=10))
    await it.confirm((await it.updates(rollout, S.OFFERED))[:1])
    waiting = (await it.updates(rollout, S.PENDING))[-1].device_id
    assert await codes(it, waiting) == {"order": None}


async def test_the_ceiling_and_the_budget_are_reasons(it: Plant) -> None:
    await it.enrol(30)
    it.conductor._limits = Ceiling(share=0.0, floor=4)
    rollout = await it.running(make_plan((REST,)))
    waiting = (await it.updates(rollout, S.PENDING))[-1].device_id

    async def held(limits: Ceiling) -> dict[str, float | None]:
        found = await it.store.read(
            lambda tx: explain.explain_device(tx, waiting, it.clock(), hearing=it.hearing(), limits=limits)
        )
        return {item["code"]: item["may_change_at"] for item in found["rollouts"][0]["reasons"]}

    assert await held(it.conductor.limits) == {"ceiling": it.clock() // 60 * 60 + 3660}
    assert await held(Ceiling(budget=Budget(5, 0.2))) == {"budget": None}


async def test_another_rollout_and_a_lost_connection_are_reasons(it: Plant) -> None:
    await it.enrol(1)
    first = await it.running(make_plan((REST,)))
    await it.send()
    await it.say(await it.updates(first), Kind.ACCEPTED)
    await it.write(lambda tx: stock(tx, 3))
    await it.running(make_plan((REST,), name="autumn", release="radio-3.0.0"))
    await it.write(lambda tx: tx.mark_online([Online(v=1, dev="d000", online=False)], it.clock()))
    [update] = await it.updates(first)
    found = await codes(it, "d000", "autumn")
    assert (found["busy"], found["offline"]) == (update.deadline_at, None)
    texts = {item["code"]: item["text"] for item in (await why(it, "d000"))[0]["reasons"]}
    assert texts["busy"].startswith("it is busy with the update of rollout spring: ")
    assert texts["offline"].startswith("it has been offline since 20")
    await it.write(lambda tx: tx.save_updates([update._replace(state=S.RETRYING, deadline_at=None)]))
    assert "newer_rollout" in await codes(it, "d000", "spring")


async def test_what_holds_a_device_is_named_with_its_time(it: Plant) -> None:
    await it.enrol(1)
    day = int(it.clock() // 86_400)
    shut = Windows(freezes=(Freeze(day, day + 1, "stocktaking"),))
    await it.running(make_plan((REST,), windows=shut))
    assert await codes(it, "d000") == {"freeze": (day + 2) * 86_400.0}


# The gate in figures


async def test_the_gate_is_explained_in_figures(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((20, REST), soak_s=60))
    updates = await it.updates(rollout, S.OFFERED)
    await it.confirm(updates[:4])
    await it.say(updates[4:5], Kind.FAILED)
    found = await explained(it)
    [total] = found["evidence"]
    assert (total["k"], total["n"], total["halts_at"], total["more"]) == (1, 10, 2, 1)
    assert found["lost"] == {"k": 0, "halts_at": 1}
    bound = found["bound"]
    assert (bound["failed"], bound["confirmed"], bound["under_way"]) == (1, 4, 5)
    assert (bound["needed"], bound["more"]) == (14, 9)
    waits = {item["code"]: (item["have"], item["need"]) for item in found["waits_for"]}
    assert waits["offers"] == (10, 0)
    assert waits["reports"] == (5, 10)
    assert waits["bound"] == (5, 14)
    assert waits["soak"] == (None, 60)
    assert found["strata"] == [{"stratum": "m1", "opened": 20, "in_flight": 5, "confirmed": 4, "failures": 1}]
    assert (found["gate"]["rule"], found["gate"]["stage"], found["gate"]["stages"]) == ("offers", 0, 2)


async def test_the_numbers_that_are_told_are_those_that_decide(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((20, REST)))
    await it.confirm((await it.updates(rollout, S.OFFERED))[:4])
    await it.say((await it.updates(rollout, S.OFFERED))[:1], Kind.FAILED)
    [total] = (await explained(it))["evidence"]
    assert total["more"] == 1
    await it.say((await it.updates(rollout, S.OFFERED))[: total["more"]], Kind.FAILED)
    assert (await it.advance(rollout)).phase is Phase.HALTED


async def test_who_did_what_is_told_votes_included(it: Plant) -> None:
    rollout = await it.create(make_plan((REST,)))
    votes = (Vote("bob", "bob", True, "looks good", 5.0), Vote("cy", "cy", False, "not on friday", 6.0))
    asked = Proposal(0, Matter.START, "spring", "", "", "ann", "ann", "please", 4.0, 1e12, 2)
    made = await it.write(lambda tx: tx.add_proposal(asked))
    await it.write(lambda tx: tx.save_proposal(replace(made, votes=votes)))
    await it.write(lambda tx: tx.add_proposal(replace(asked, object="autumn")))
    await it.enrol(1)
    await it.command(rollout, C.START, "now")
    await it.command(rollout, C.HALT, "it smells")
    found = (await explained(it))["people"]
    assert [(item["actor"], item["did"], item["text"]) for item in found] == [
        ("ann", "asked for start (proposed)", "please"),
        ("bob", "approved start", "looks good"),
        ("cy", "rejected start", "not on friday"),
        ("ann", "created", ""),
        ("ann", "start", "now"),
        ("ann", "halt", "it smells"),
    ]


def test_one_act_is_told_once_and_two_acts_twice() -> None:
    def event(stage: int, code: str = "operator_skip", text: str = "hurry") -> Event:
        return Event(float(stage), Phase.RUNNING, code, text, "ann", stage)

    twice = [event(0), event(1), event(1), event(2)]
    assert explain.told_once(twice) == [twice[0], twice[2]]
    other = [event(0), event(1, text="by another word")]
    assert explain.told_once(other) == other
    passed = [event(0, "passed", "so"), event(1, "passed", "so")]
    assert explain.told_once(passed) == passed
    assert explain.told_once([]) == []
