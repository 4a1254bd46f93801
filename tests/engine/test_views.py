"""What is shown: every state has a sentence, and every "why not" its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.core.model import Phase, Rollout, UpdateState
from orchestrator.core.rollout import TABLE, Command
from orchestrator.engine import views
from orchestrator.engine.operations import NewDevice, enrol
from orchestrator.errors import NotFoundError
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, make_artifact, stock

S, C = UpdateState, Command
View = dict[str, Any]


async def seen(it: Plant, name: str = "spring") -> View:
    found = await it.store.read(lambda tx: views.rollout_view(tx, name, it.clock(), hearing=it.hearing()))
    json.dumps(found)
    return found


async def explained(it: Plant, name: str = "spring") -> View:
    found = await it.store.read(lambda tx: views.explain_rollout(tx, name, it.clock(), hearing=it.hearing()))
    json.dumps(found)
    return found


async def why(it: Plant, device_id: str) -> list[View]:
    found = await it.store.read(lambda tx: views.explain_device(tx, device_id))
    json.dumps(found)
    rollouts: list[View] = found["rollouts"]
    return rollouts


# Rollouts


async def test_a_draft_is_shown_before_anything_is_known(it: Plant) -> None:
    await it.create(make_plan((5, REST)))
    view = await seen(it)
    assert (view["phase"], view["cohort_size"], view["bound"], view["reached"]) == ("draft", None, None, 0)
    assert [(stage["phase"], stage["target"], stage["opened"]) for stage in view["stages"]] == [
        ("waiting", None, 0)
    ] * 2
    assert (await explained(it))["next"] == ["a person may: start, abort"]


async def test_a_running_rollout_is_shown_with_its_numbers(it: Plant) -> None:
    await it.enrol(30)
    rollout = await it.running(make_plan((20, REST)))
    updates = await it.updates(rollout, S.OFFERED)
    await it.confirm(updates[:4])
    await it.say(updates[4:5], Kind.FAILED)
    view = await seen(it)
    assert view["states"] == {"confirmed": 4, "failed": 1, "offered": 5, "pending": 10}
    assert (view["in_flight"], view["in_flight_limit"], view["reached"], view["epoch"]) == (5, 100, 10, 0)
    assert view["standing"]["code"] == "offering"
    assert [stage["phase"] for stage in view["stages"]] == ["open", "waiting"]
    assert view["stages"][0] | {"failures": 1, "confirmed": 4, "in_flight": 5, "opened": 20} == view["stages"][0]
    [total] = view["evidence"]
    assert (total["stratum"], total["k"], total["n"], total["threshold"]) == ("all", 1, 10, 20)
    assert (view["bound"]["k"], view["bound"]["n"]) == (6, 10)
    line = await it.store.read(lambda tx: views.rollout_line(rollout, tx.tally(rollout.id)))
    assert (line["confirmed"], line["failures"], line["in_flight"], line["stages"]) == (4, 1, 5, 2)


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


async def test_each_stage_is_passed_open_or_waiting(it: Plant) -> None:
    await it.enrol(40)
    rollout = await it.running(make_plan((10, 10, REST)))
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)
    assert [stage["phase"] for stage in (await seen(it))["stages"]] == ["passed", "open", "waiting"]


async def test_a_halted_and_a_finished_rollout_say_what_a_person_may_do(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.command(rollout, C.HALT, "it smells")
    found = await explained(it)
    assert (found["because"], found["code"]) == ("it smells", "operator_halt")
    assert found["next"][0] == "a person may: resume, abort"
    assert "half the alpha" in found["next"][1]
    assert [(event["code"], event["actor"]) for event in found["events"]][-1] == ("operator_halt", "ann")
    await it.command(rollout, C.ABORT)
    assert (await explained(it))["next"] == ["nothing: it is over"]


@pytest.mark.parametrize("phase", Phase)
async def test_every_phase_can_be_shown(it: Plant, phase: Phase) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.write(lambda tx: tx.save_rollout(replace(rollout, phase=phase), None))
    assert (await seen(it))["phase"] == phase
    [said, *_] = (await explained(it))["next"]
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
    with_code = state in (S.REFUSED, S.FAILED, S.ROLLED_BACK)
    assert ("no_space" in view["because"]) is with_code
    await put(it, rollout, state, "")
    [view] = await why(it, "d000")
    assert ("no reason given" in view["because"]) is with_code


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


async def test_what_does_not_exist_is_not_shown(it: Plant) -> None:
    for view in (views.device_view, views.explain_device):
        with pytest.raises(NotFoundError, match="no device 'none'"):
            await it.store.read(partial(view, device_id="none"))
    with pytest.raises(NotFoundError, match="no rollout named 'none'"):
        await seen(it, "none")
    with pytest.raises(NotFoundError, match="no rollout named 'none'"):
        await explained(it, "none")


async def test_artifacts_and_releases_have_a_line_each(it: Plant) -> None:
    await it.write(stock)
    artifact = make_artifact(2, ("m1",), source_version="v7")
    line = views.artifact_line(artifact)
    assert (line["sha256"], line["hardware"], line["source_version"]) == (artifact.sha256, ["m1"], "v7")
    [release] = await it.store.read(lambda tx: tx.releases())
    assert views.release_line(release) == {
        "name": "radio-2.0.0",
        "version": "2.0.0",
        "rel": 2,
        "artifacts": [artifact.sha256],
        "created_at": 0.0,
    }
