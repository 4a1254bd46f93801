"""What operators do while rollouts run, over the API: by one, by one twice, and by two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.core.model import UpdateState
from orchestrator.core.trust.roles import Role
from orchestrator.ports import DeliveryState
from orchestrator.wire.report import Kind
from tests.support.factory import make_report
from tests.web.site import PLAN, Site, problem, site

STAGED = PLAN | {"stages": [{"devices": 2, "soak": "1h"}, {"devices": "rest", "soak": "1h"}], "in_flight": 5}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Site]:
    """A site where `spring` runs on the first two of four devices; ann and dee operate."""
    async with site(tmp_path) as running:
        await running.release()
        await running.enrol("d1", "d2", "d3", "d4")
        for name in ("ann", "dee"):
            running.tokens[name] = await running.operator(name, Role.OPERATOR)
        await running.roll_out(**STAGED)
        yield running


async def two_persons(web: Site) -> None:
    """Let ben and cleo approve from now on."""
    for name in ("ben", "cleo"):
        web.tokens[name] = await web.operator(name, Role.APPROVER)


async def act(web: Site, word: str, who: str = "ann", **body: Any) -> httpx2.Response:
    return await web.ops("POST", f"/rollouts/spring/{word}", body, token=web.tokens[who])


async def edit(web: Site, who: str = "ann", expect: int | None = None, **changes: Any) -> httpx2.Response:
    body = {"plan": STAGED | changes, "reason": "slower", "expect": expect}
    return await web.ops("POST", "/rollouts/spring/edit", body, token=web.tokens[who])


async def shown(web: Site) -> dict[str, Any]:
    found: dict[str, Any] = (await web.ops("GET", "/rollouts/spring")).json()
    return found


async def history(web: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await web.ops("GET", "/rollouts/spring/history")).json()
    return found


async def acts(web: Site, *actions: str) -> list[tuple[str, str]]:
    """Return who did which of these actions, as the audit log has it."""
    entries = await web.plant.store.read(lambda tx: tx.audit_entries(0, 1000))
    return [(item.action, item.actor) for item in entries if item.action in actions]


# Passing a stage on a person's word


@pytest.mark.parametrize("word", ["advance", "skip"])
async def test_a_word_in_the_place_of_evidence_waits_for_another_person(web: Site, word: str) -> None:
    await two_persons(web)
    assert problem(await act(web, word)) == (400, "reason_needed")
    answer = await act(web, word, reason="the lab saw enough")
    assert problem(answer) == (409, "approval_needed")
    assert "stage 1 would pass on a person's word" in answer.json()["detail"]
    number = answer.json()["proposal"]
    seen = {"reason": "so did I"}
    assert (await web.ops("POST", f"/approvals/{number}/approve", seen, token=web.tokens["ben"])).status_code == 200
    assert problem(await act(web, word, "dee", reason="me too")) == (409, "approval_needed")  # it is ann's
    done = await act(web, word, reason="the lab saw enough")
    assert (done.status_code, done.json()["changed"]) == (200, True)
    again = await act(web, word, reason="the lab saw enough")
    assert (again.status_code, again.json()["changed"]) == (200, False)


async def test_an_approval_to_skip_is_for_that_stage_alone(web: Site) -> None:
    await two_persons(web)
    number = (await act(web, "skip", reason="no such site")).json()["proposal"]
    await web.ops("POST", f"/approvals/{number}/approve", {"reason": "yes"}, token=web.tokens["ben"])
    plant = web.plant
    rollout = await plant.rollout(1)
    await plant.confirm(await plant.updates(rollout))
    await plant.advance(rollout)
    plant.clock.advance(3600)
    plant.hearing()
    assert (await plant.advance(rollout)).stage == 1
    assert problem(await act(web, "skip", reason="no such site")) == (409, "last_stage")
    answer = await act(web, "advance", reason="no such site")
    assert answer.status_code == 409


async def test_retry_needs_nobody_else_and_gives_another_attempt(web: Site) -> None:
    await two_persons(web)
    rollout = await web.plant.rollout(1)
    first, _ = await web.plant.updates(rollout)
    await web.plant.record(
        make_report(first, Kind.ACCEPTED, 1), make_report(first, Kind.FAILED, 2, code="hash_mismatch")
    )
    answers = await asyncio.gather(
        act(web, "retry", reason="new antenna"), act(web, "retry", "dee", reason="new antenna")
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(answer.json()["changed"] for answer in answers) == [False, True]


# Two at once


async def test_the_same_act_of_two_is_done_once_and_both_are_told(web: Site) -> None:
    for word, phase in (("pause", "paused"), ("resume", "running"), ("halt", "halted"), ("abort", "aborted")):
        answers = await asyncio.gather(*(act(web, word, who, reason=who) for who in ("ann", "dee") * 3))
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(answer.json()["changed"] for answer in answers) == [False] * 5 + [True]
        assert {answer.json()["phase"] for answer in answers} == {phase}
        winner = next(answer.json()["actor"] for answer in answers if answer.json()["changed"])
        assert (await shown(web))["actor"] == winner
        told = {answer.json()["answer"] for answer in answers if not answer.json()["changed"]}
        assert told == {f"it is {phase} already"}


async def test_acts_that_contradict_each_other_are_done_one_after_the_other(web: Site) -> None:
    first, second = await asyncio.gather(act(web, "abort", reason="over"), act(web, "pause", "dee", reason="wait"))
    assert (await shown(web))["phase"] == "aborted"
    assert first.status_code == 200
    if second.status_code == 409:
        assert second.json()["detail"] == "cannot pause a rollout that is aborted; possible: nothing"
    else:
        assert second.json()["changed"]
    moved = [line async for line in _moves(web)]
    assert moved[-1] == "aborted"
    assert moved.count("aborted") == 1


async def _moves(web: Site) -> AsyncIterator[str]:
    for event in await web.plant.store.read(lambda tx: tx.events(1)):
        yield event.phase.value


async def test_a_halt_and_an_edit_at_once_both_hold(web: Site) -> None:
    halted, edited = await asyncio.gather(act(web, "halt", reason="smoke"), edit(web, "dee", in_flight=2))
    assert (halted.status_code, edited.status_code) == (200, 200)
    found = await shown(web)
    assert (found["phase"], found["reason"]["text"], found["actor"]) == ("halted", "smoke", "ann")
    assert found["in_flight_limit"] == 2


async def test_two_edits_of_the_same_version_are_one_and_the_other_is_told(web: Site) -> None:
    answers = await asyncio.gather(edit(web, "ann", 1, in_flight=3), edit(web, "dee", 1, in_flight=4))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    lost = next(answer for answer in answers if answer.status_code == 409)
    winner = "ann" if answers[0].status_code == 200 else "dee"
    assert problem(lost) == (409, "plan_changed")
    assert lost.json()["detail"].startswith(f"the plan of spring is version 2 by now, made by {winner}, and not 1;")
    assert [item["version"] for item in await history(web)] == [1, 2]
    assert await acts(web, "rollout.edited") == [("rollout.edited", winner)]


async def test_the_same_edit_twice_is_one(web: Site) -> None:
    answers = await asyncio.gather(edit(web, "ann", 1, in_flight=3), edit(web, "dee", 1, in_flight=3))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(len(answer.json()["changes"]) for answer in answers) == [0, 1]
    assert {answer.json()["version"] for answer in answers} == {2}


# Edits


async def test_an_edit_is_kept_told_and_voids_nothing(web: Site) -> None:
    plant = web.plant
    await plant.seal()
    before = [item.token for item in await plant.parcels(await plant.rollout(1))]
    answer = await edit(web, expect=1, in_flight=2, stages=[STAGED["stages"][0], {"devices": 1, "soak": "2h"}])
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert answer.json()["changes"] == [
        {"path": "in_flight", "before": "5", "after": "2", "loosens": False},
        {"path": "stages.1.devices", "before": "rest", "after": "1", "loosens": False},
        {"path": "stages.1.soak", "before": "1h", "after": "2h", "loosens": False},
    ]
    after = await plant.parcels(await plant.rollout(1))
    assert [item.token for item in after] == before
    assert {item.state for item in after} == {DeliveryState.SEALED}
    assert len(await plant.dispatch()) == 2
    found = await shown(web)
    assert [stage["base"] for stage in found["stages"]] == [2, 1]
    assert [(item["version"], item["actor"], item["reason"]) for item in await history(web)] == [
        (1, "operator", ""),
        (2, "ann", "slower"),
    ]
    explained = (await web.ops("GET", "/rollouts/spring/explain")).json()
    assert any("plan version 2: in_flight 5 -> 2" in event["text"] for event in explained["events"])
    assert await acts(web, "rollout.edited") == [("rollout.edited", "ann")]


async def test_a_dry_run_says_what_would_be_different_and_changes_nothing(web: Site) -> None:
    body = {"plan": STAGED | {"in_flight": 50}, "dry_run": True}
    answer = await web.ops("POST", "/rollouts/spring/edit", body, token=web.tokens["ann"])
    assert answer.json()["version"] == 2
    assert [item["loosens"] for item in answer.json()["changes"]] == [True]
    assert len(await history(web)) == 1


async def test_what_loosens_waits_for_another_person_and_what_tightens_does_not(web: Site) -> None:
    await two_persons(web)
    assert (await edit(web, in_flight=3)).status_code == 200
    answer = await edit(web, in_flight=50)
    assert problem(answer) == (409, "approval_needed")
    assert answer.json()["detail"].startswith(
        "edit of spring, version 3 (in_flight 3 -> 50): it loosens in_flight. Another person must approve it"
    )
    number = answer.json()["proposal"]
    await web.ops("POST", f"/approvals/{number}/approve", {"reason": "yes"}, token=web.tokens["ben"])
    other = await edit(web, in_flight=51)  # what was approved is exactly one plan
    assert problem(other) == (409, "approval_needed")
    await web.ops("POST", f"/approvals/{other.json()['proposal']}/approve", {"reason": "y"}, token=web.tokens["ben"])
    assert (await edit(web, in_flight=51)).status_code == 200
    assert (await shown(web))["in_flight_limit"] == 51


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "autumn"}, (400, "not_editable")),
        ({"release": "radio-9"}, (400, "not_editable")),
        ({"target": {"models": ["m1"]}}, (400, "not_editable")),
        ({"stages": [{"devices": 3, "soak": "1h"}, {"devices": "rest", "soak": "1h"}]}, (400, "not_editable")),
        ({"in_flight": 0}, (422, "invalid")),
    ],
)
async def test_edits_that_are_refused(web: Site, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    assert problem(await edit(web, **changes)) == expected
    assert len(await history(web)) == 1


async def test_an_edit_needs_a_reason_a_rollout_and_one_that_is_not_over(web: Site) -> None:
    body: dict[str, Any] = {"plan": STAGED | {"in_flight": 2}}
    assert problem(await web.ops("POST", "/rollouts/spring/edit", body)) == (400, "reason_needed")
    body |= {"reason": "x"}
    assert problem(await web.ops("POST", "/rollouts/none/edit", body)) == (404, "not_found")
    assert problem(await web.ops("GET", "/rollouts/none/history")) == (404, "not_found")
    await act(web, "abort")
    assert problem(await web.ops("POST", "/rollouts/spring/edit", body)) == (409, "over")


async def test_a_draft_is_edited_freely_and_only_to_what_exists(web: Site) -> None:
    await web.ops("POST", "/rollouts", PLAN | {"name": "draft"})
    plan = PLAN | {"name": "draft", "target": {"models": ["m1"]}, "in_flight": 900}
    body = {"plan": plan, "reason": "more"}
    assert (await web.ops("POST", "/rollouts/draft/edit", body)).status_code == 200
    body = {"plan": plan | {"target": {"models": ["nothing-for-it"]}}, "reason": "more"}
    assert problem(await web.ops("POST", "/rollouts/draft/edit", body)) == (400, "bad_request")


# Rollback


async def test_a_rollback_is_a_draft_once_a_statement_allows_it(web: Site) -> None:
    await act(web, "halt", reason="smoke")
    older = b"older" * 1000
    await web.release(older, rel=1)
    refused = await act(web, "rollback", reason="it loses packets")
    assert problem(refused) == (400, "downgrade_not_allowed")
    web.put_image(older, rel=1, leaves=(2,))
    again = await web.ops("POST", "/artifacts", {"uri": (web.folder / "fw.bin").as_uri()})
    assert again.status_code == 201
    made = await act(web, "rollback", reason="it loses packets")
    assert (made.status_code, made.json()["phase"], made.json()["release"]) == (201, "draft", "radio-1")
    assert [item["name"] for item in (await web.ops("GET", "/rollouts")).json()] == ["spring-rollback", "spring"]
    assert problem(await act(web, "rollback", reason="once more")) == (409, "conflict")
    plan = STAGED | {"name": "spring-rollback", "release": "radio-1", "in_flight": 3}
    body = {"plan": plan, "reason": "slower"}
    assert (await web.ops("POST", "/rollouts/spring-rollback/edit", body)).status_code == 200
    rollout = await web.plant.rollout(2)
    assert (rollout.plan.leaves, rollout.plan.in_flight) == (2, 3)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid")),
        ({"reason": " "}, (422, "invalid")),
        ({"reason": "x", "to": "radio-9"}, (404, "not_found")),
        ({"reason": "x", "name": "UPPER"}, (422, "invalid")),
        ({"reason": "x"}, (400, "bad_request")),
    ],
)
async def test_rollbacks_that_are_refused(web: Site, body: Any, expected: tuple[int, str]) -> None:
    assert problem(await act(web, "rollback", reason="too soon")) == (409, "not_stopped")
    await act(web, "halt", reason="smoke")
    assert problem(await web.ops("POST", "/rollouts/spring/rollback", body)) == expected


# Quarantine


async def hold(web: Site, word: str, *devices: str, who: str = "ann") -> httpx2.Response:
    body = {"devices": list(devices), "reason": "wet"}
    return await web.ops("POST", f"/devices/{word}", body, token=web.tokens[who])


async def test_a_quarantine_is_entered_once_listed_and_left_once(web: Site) -> None:
    answers = await asyncio.gather(hold(web, "quarantine", "d1", "d3"), hold(web, "quarantine", "d3", who="dee"))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sum(answer.json()["changed"] for answer in answers) == 2
    listed = (await web.ops("GET", "/devices", params={"quarantined": True})).json()
    assert [(item["id"], item["quarantine"]) for item in listed] == [("d1", "wet"), ("d3", "wet")]
    assert listed[0]["quarantined_at"] == web.plant.clock()
    for changed in (2, 0):
        assert (await hold(web, "release", "d1", "d3")).json() == {"changed": changed}
    assert (await web.ops("GET", "/devices", params={"quarantined": True})).json() == []
    names = await acts(web, "devices.quarantined", "devices.released")
    assert ("devices.released", "ann") in names


async def test_a_quarantined_device_is_not_taken_in_and_what_has_begun_goes_on(web: Site) -> None:
    rollout = await web.plant.rollout(1)
    offered = [item.device_id for item in await web.plant.updates(rollout, UpdateState.OFFERED)]
    await hold(web, "quarantine", "d1", "d2", "d3", "d4")
    assert [item.device_id for item in await web.plant.updates(rollout, UpdateState.OFFERED)] == offered


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"devices": ["nobody"], "reason": "x"}, (404, "not_found")),
        ({"devices": ["d1"], "reason": " "}, (422, "invalid")),
        ({"devices": ["d1"]}, (422, "invalid")),
        ({"devices": [], "reason": "x"}, (422, "invalid")),
    ],
)
async def test_quarantines_that_are_refused(web: Site, body: Any, expected: tuple[int, str]) -> None:
    for word in ("quarantine", "release"):
        assert problem(await web.ops("POST", f"/devices/{word}", body)) == expected
