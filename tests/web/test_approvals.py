"""Approvals over the API: what waits, who may let it go on, and what makes it void."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.core.trust.roles import Role
from orchestrator.engine.trust.approvals import Rules
from orchestrator.ports import Lane
from tests.web.site import PLAN, Site, problem, site

HALF = Rules(approve_above=0.5)
START = "/rollouts/spring/start"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Site]:
    """A site with ann, who operates, and with ben and cleo, who may approve; a start above half the fleet asks them."""
    async with site(tmp_path, rules=HALF) as running:
        await running.release()
        await running.enrol("d1", "d2", "d3", "d4")
        running.tokens["ann"] = await running.operator("ann", Role.OPERATOR)
        running.tokens["ann-too"] = await running.operator("ann-too", Role.APPROVER, person="ann")
        for name in ("ben", "cleo"):
            running.tokens[name] = await running.operator(name, Role.APPROVER)
        assert (await running.ops("POST", "/rollouts", PLAN)).status_code == 201
        yield running


async def start(web: Site, who: str = "ann", **body: str) -> httpx2.Response:
    return await web.ops("POST", START, body, token=web.tokens[who])


async def waits(web: Site, who: str = "ann") -> int:
    """Start and return the number of the proposal that this must wait for."""
    answer = await start(web, who)
    assert problem(answer) == (409, "approval_needed")
    number: int = answer.json()["proposal"]
    return number


async def say(web: Site, who: str, number: int, word: str = "approve") -> httpx2.Response:
    return await web.ops("POST", f"/approvals/{number}/{word}", {"reason": "seen"}, token=web.tokens[who])


async def state(web: Site, number: int) -> str:
    found: str = (await web.ops("GET", f"/approvals/{number}")).json()["state"]
    return found


async def phase(web: Site) -> str:
    found: str = (await web.ops("GET", "/rollouts/spring")).json()["phase"]
    return found


async def test_a_start_above_the_share_waits_for_another_person_and_then_goes(web: Site) -> None:
    answer = await start(web, reason="it is spring")
    assert answer.json()["detail"] == (
        "start of spring (release radio-2, 4 of 4 devices): it reaches 100% of the fleet, and 50% need no approval. "
        "Another person must approve it with `ota approve 1 --reason WHY`; then give this command once more"
    )
    assert (await phase(web), await waits(web)) == ("draft", 1)
    approved = await say(web, "ben", 1)
    assert (approved.status_code, approved.json()["state"], approved.json()["proposer"]) == (200, "approved", "ann")
    assert approved.json()["reason"] == "it is spring"
    assert (await start(web)).status_code == 200
    assert (await phase(web), await state(web, 1)) == ("preparing", "used")


async def test_a_start_below_the_share_waits_for_nobody(web: Site) -> None:
    plan = PLAN | {"name": "small", "target": {"groups": ["few"]}}
    await web.ops("POST", "/devices", {"devices": [{"id": "d5", "model": "m1", "groups": ["few"]}]})
    await web.ops("POST", "/rollouts", plan)
    assert (await web.ops("POST", "/rollouts/small/start", {}, token=web.tokens["ann"])).status_code == 200


async def test_the_proposer_cannot_approve_also_not_as_another_account(web: Site) -> None:
    number = await waits(web)
    assert problem(await say(web, "ann", number)) == (403, "not_permitted")
    assert problem(await say(web, "ann-too", number)) == (403, "own_proposal")
    assert await state(web, number) == "proposed"


async def test_what_the_shared_login_proposes_takes_two_and_it_approves_nothing(web: Site) -> None:
    answer = await web.ops("POST", START, {})
    number = answer.json()["proposal"]
    assert problem(await web.ops("POST", f"/approvals/{number}/approve", {"reason": "x"})) == (403, "nobody")
    assert (await say(web, "ben", number)).json()["state"] == "proposed"
    assert problem(await say(web, "ben", number)) == (409, "same_person")
    assert problem(await web.ops("POST", START, {})) == (409, "approval_needed")
    assert (await say(web, "cleo", number)).json()["state"] == "approved"
    assert (await web.ops("POST", START, {})).status_code == 200


async def test_two_approvals_at_once_are_one_each_or_a_conflict(web: Site) -> None:
    number = await waits(web)
    answers = await asyncio.gather(say(web, "ben", number), say(web, "cleo", number), say(web, "ben", number))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    found = (await web.ops("GET", f"/approvals/{number}")).json()
    assert (found["state"], len(found["votes"])) == ("approved", 1)


async def test_an_approval_is_used_once(web: Site) -> None:
    await say(web, "ben", await waits(web))
    first, second = await asyncio.gather(start(web), start(web))
    assert (first.status_code, second.status_code) == (200, 200)  # the second finds it started already
    await web.ops("POST", "/rollouts/spring/abort", {})
    await web.ops("POST", "/rollouts", PLAN | {"name": "autumn"})
    other = await web.ops("POST", "/rollouts/autumn/start", {}, token=web.tokens["ann"])
    assert problem(other) == (409, "approval_needed")


async def test_an_approval_of_one_is_no_other_proposers(web: Site) -> None:
    web.tokens["dee"] = await web.operator("dee", Role.OPERATOR)
    await say(web, "ben", await waits(web))
    assert await waits(web, "dee") == 2


async def test_a_fleet_that_grew_makes_the_approval_void(web: Site) -> None:
    number = await waits(web)
    await say(web, "ben", number)
    await web.enrol("d5")
    assert await waits(web) == number + 1
    assert await state(web, number) == "void"


async def test_an_approval_that_is_too_old_is_refused(web: Site) -> None:
    number = await waits(web)
    web.plant.clock.advance(HALF.lifetime_s)
    assert await state(web, number) == "expired"
    assert problem(await say(web, "ben", number)) == (409, "proposal_expired")
    assert await waits(web) == number + 1


async def test_a_rejection_ends_it(web: Site) -> None:
    number = await waits(web)
    assert (await say(web, "cleo", number, "reject")).json()["state"] == "rejected"
    assert problem(await say(web, "ben", number)) == (409, "proposal_rejected")
    assert await waits(web) == number + 1


async def test_who_approved_may_reject_it_later(web: Site) -> None:
    number = await waits(web)
    await say(web, "ben", number)
    assert (await say(web, "ben", number, "reject")).json()["state"] == "rejected"
    assert await waits(web) == number + 1


async def test_an_account_that_is_another_persons_now_votes_for_that_one(web: Site) -> None:
    number = (await web.ops("POST", START, {})).json()["proposal"]
    await say(web, "ben", number)
    await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.remove_operator("ben"))
    web.tokens["ben"] = await web.operator("ben", Role.APPROVER, person="dee")
    assert (await say(web, "ben", number)).json()["state"] == "proposed"
    assert (await say(web, "cleo", number)).json()["state"] == "approved"


async def test_a_vote_that_was_lost_is_on_record(web: Site) -> None:
    await say(web, "ben", await waits(web))
    await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.remove_operator("ben"))
    for _ in range(2):
        await waits(web)
    entries = await web.plant.store.read(lambda tx: tx.audit_entries(0, 1000))
    assert [item.action for item in entries].count("approval.proposed") == 2


async def test_an_admin_alone_is_not_two_persons(web: Site) -> None:
    """Neither by an operator whom they invent nor by a token of one who is there."""
    boss = await web.operator("boss", Role.ADMIN)
    ghost = {"name": "ghost", "person": "ghost", "roles": ["operator"]}
    for path, body in (("/operators", ghost), ("/operators/ann/tokens", {})):
        answer = await web.ops("POST", path, body, token=boss)
        assert problem(answer) == (409, "approval_needed")
        number = answer.json()["proposal"]
        own = await web.ops("POST", f"/approvals/{number}/approve", {"reason": "x"}, token=boss)
        assert problem(own) == (403, "own_proposal")


async def test_a_pause_while_the_cohort_is_counted_lets_nobody_in_unseen(web: Site) -> None:
    few = PLAN | {"name": "few", "target": {"groups": ["few"]}}
    body = [{"id": f"f{at}", "model": "m1", "groups": ["few"]} for at in range(20)]
    await web.ops("POST", "/devices", {"devices": body[:1]})
    await web.ops("POST", "/rollouts", few)
    ann = {"token": web.tokens["ann"]}
    for word in ("start", "pause", "resume", "pause"):
        assert (await web.ops("POST", f"/rollouts/few/{word}", {}, **ann)).status_code == 200
    await web.ops("POST", "/devices", {"devices": body[1:]})
    answer = await web.ops("POST", "/rollouts/few/resume", {}, **ann)
    assert problem(answer) == (409, "approval_needed")
    assert "20 of 24 devices): it reaches 83% of the fleet" in answer.json()["detail"]
    await say(web, "ben", answer.json()["proposal"])
    assert (await web.ops("POST", "/rollouts/few/resume", {}, **ann)).json()["phase"] == "preparing"


async def test_the_vote_of_one_who_was_removed_counts_no_more(web: Site) -> None:
    number = await waits(web)
    await say(web, "ben", number)
    await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.remove_operator("ben"))
    assert await waits(web) == number
    await say(web, "cleo", number)
    assert (await start(web)).status_code == 200


async def test_going_on_after_a_halt_needs_another_person_and_stopping_none(web: Site) -> None:
    await say(web, "ben", await waits(web))
    await start(web)
    await web.plant.conductor.advance(1)
    ann = {"token": web.tokens["ann"]}
    for word in ("pause", "resume", "halt"):
        answer = await web.ops("POST", f"/rollouts/spring/{word}", {"reason": "x"}, **ann)
        assert answer.status_code == 200, answer.text
    answer = await web.ops("POST", "/rollouts/spring/resume", {"reason": "it was the weather"}, **ann)
    assert problem(answer) == (409, "approval_needed")
    assert "going on overrides the gate" in answer.json()["detail"]
    await say(web, "cleo", answer.json()["proposal"])
    assert (await web.ops("POST", "/rollouts/spring/resume", {"reason": "as said"}, **ann)).status_code == 200


async def test_an_older_release_than_one_that_was_brought_needs_another_person(web: Site) -> None:
    web.tokens["dee"] = await web.operator("dee", Role.OPERATOR)
    await web.release(b"newer" * 1000, rel=3)
    newer = PLAN | {"name": "newer", "release": "radio-3"}
    await web.ops("POST", "/rollouts", newer)
    number = (await web.ops("POST", "/rollouts/newer/start", {}, token=web.tokens["ann"])).json()["proposal"]
    await say(web, "ben", number)
    assert (await web.ops("POST", "/rollouts/newer/start", {}, token=web.tokens["ann"])).status_code == 200
    assert "brings an older release" in (await start(web)).json()["detail"]


async def test_what_cannot_be_done_is_not_even_proposed(web: Site) -> None:
    answer = await web.ops("POST", "/rollouts/spring/resume", {"reason": "x"}, token=web.tokens["ann"])
    assert problem(answer) == (409, "conflict")
    assert (await web.ops("GET", "/approvals")).json() == {"proposals": [], "reviews": []}


async def test_the_glass_does_not_break_over_the_network(web: Site) -> None:
    for answer in (
        await start(web, break_glass="fire"),
        await web.ops("POST", START, {"break_glass": "fire"}),
    ):
        assert problem(answer) == (403, "not_local")
    assert await phase(web) == "draft"


async def test_the_list_shows_what_was_said(web: Site) -> None:
    number = await waits(web)
    await say(web, "ben", number)
    listed = (await web.ops("GET", "/approvals", token=web.tokens["cleo"])).json()
    (line,) = listed["proposals"]
    assert (line["matter"], line["object"], line["needed"], listed["reviews"]) == ("start", "spring", 1, [])
    assert line["votes"] == [
        {"actor": "ben", "person": "ben", "approves": True, "reason": "seen", "at": web.plant.clock()}
    ]


async def test_every_turn_is_in_the_audit_log(web: Site) -> None:
    await say(web, "ben", await waits(web))
    await start(web)
    entries = await web.plant.store.read(lambda tx: tx.audit_entries(0, 1000))
    actions = [(item.actor, item.action) for item in entries if item.action.startswith("approval.")]
    assert actions == [("ann", "approval.proposed"), ("ben", "approval.vote"), ("ann", "approval.used")]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/approvals/7/approve", {"reason": "x"}, (404, "not_found")),
        ("/approvals/7/reject", {"reason": "x"}, (404, "not_found")),
        ("/reviews/7/close", {"reason": "x"}, (404, "not_found")),
        ("/approvals/7/approve", {"reason": ""}, (422, "invalid")),
        ("/approvals/7/approve", {"reason": " \n"}, (422, "invalid")),
        ("/approvals/99999999999999999999/approve", {"reason": "x"}, (422, "invalid")),
        ("/approvals/x/approve", {"reason": "x"}, (422, "invalid")),
    ],
)
async def test_what_does_not_exist(web: Site, path: str, body: Any, expected: tuple[int, str]) -> None:
    assert problem(await web.ops("POST", path, body, token=web.tokens["ben"])) == expected


# How many persons there are


async def test_with_one_approver_nothing_waits_unless_it_always_does(tmp_path: Path) -> None:
    for always, expected in ((False, 200), (True, 409)):
        (tmp_path / str(always)).mkdir()
        rules = Rules(always=always, approve_above=0.5)
        async with site(tmp_path / str(always), rules=rules) as web:
            await web.release()
            await web.enrol("d1")
            await web.operator("ben", Role.APPROVER)
            await web.operator("ben-too", Role.ADMIN, person="ben")
            await web.ops("POST", "/rollouts", PLAN)
            assert (await web.ops("POST", START, {})).status_code == expected
