"""Acts under a key: done once, answered the same, also where the daemon dies in between; and marks of what was seen."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from orchestrator.core.trust.roles import Role
from orchestrator.web.once import KEPT_S
from tests.support.factory import Plant
from tests.web.site import PLAN, TOKEN, Site, problem, site, site_of

KEY = "3f0c9a34-5b7e-4b8e-9d55-0a4e7a1f6c11"


async def act(
    web: Site, path: str, body: object, key: str = KEY, token: str = TOKEN, **headers: str
) -> httpx2.Response:
    said = {"Authorization": f"Bearer {token}", "Idempotency-Key": key} | headers
    return await web.http.post(f"/api/v1{path}", json=body, headers=said)


async def entries(web: Site) -> int:
    return len((await web.ops("GET", "/audit?limit=1000")).json())


async def test_an_act_is_done_once_and_answered_the_same(web: Site) -> None:
    await web.release()
    first = await act(web, "/rollouts", PLAN)
    before = await entries(web)
    again = await act(web, "/rollouts", PLAN)
    assert (again.status_code, again.json()) == (first.status_code, first.json()) == (201, first.json())
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert await entries(web) == before
    other = await act(web, "/rollouts", PLAN, key="another-key-that-is-long")
    assert problem(other) == (409, "conflict")


async def test_the_answer_is_that_of_the_moment_of_the_act(web: Site) -> None:
    await web.release()
    await web.enrol("d1")
    await web.roll_out()
    halted = (await act(web, "/rollouts/spring/halt", {"reason": "smoke"})).json()
    assert halted["phase"] == "halted"
    await web.ops("POST", "/rollouts/spring/abort", {"reason": "no use"})
    assert (await act(web, "/rollouts/spring/halt", {"reason": "smoke"})).json() == halted


async def test_a_token_that_is_shown_once_is_shown_again_under_its_key_and_is_not_in_the_database(web: Site) -> None:
    body = {"devices": [{"id": "d1", "model": "m1"}]}
    token = (await act(web, "/devices", body)).json()["tokens"]["d1"]
    assert (await act(web, "/devices", body)).json() == {"tokens": {"d1": token}}
    web.tokens["d1"] = token
    assert (await web.as_device("d1", "GET", "/api/v1/firmware/version")).status_code == 204
    files = sorted(web.plant.folder.glob("state.db*"))
    assert files
    for file in files:
        content = file.read_bytes()
        assert token.encode() not in content
        assert KEY.encode() not in content


async def test_a_key_belongs_to_one_request_and_one_account(web: Site) -> None:
    await web.release()
    assert (await act(web, "/rollouts", PLAN)).status_code == 201
    assert problem(await act(web, "/rollouts", PLAN | {"name": "autumn"})) == (422, "key_reused")
    assert problem(await act(web, "/rollouts/spring/start", {})) == (422, "key_reused")
    bo = await web.operator("bo", Role.OPERATOR)
    assert (await act(web, "/rollouts", PLAN | {"name": "autumn"}, token=bo)).status_code == 201


async def test_a_refusal_is_no_act(web: Site) -> None:
    assert problem(await act(web, "/rollouts", PLAN)) == (404, "not_found")
    await web.release()
    assert (await act(web, "/rollouts", PLAN)).status_code == 201


async def test_what_waits_for_approval_is_done_under_the_same_key_afterwards(web: Site) -> None:
    bo = await web.operator("bo", Role.ADMIN)
    al = await web.operator("al", Role.ADMIN)
    body = {"name": "cy", "person": "cy", "roles": ["admin"]}
    waits = await act(web, "/operators", body, token=bo)
    assert problem(waits) == (409, "approval_needed")
    number = waits.json()["proposal"]
    for _ in range(2):  # a vote is an act, too
        voted = await act(web, f"/approvals/{number}/approve", {"reason": "known"}, token=al)
        assert voted.json()["state"] == "approved"
    made = await act(web, "/operators", body, token=bo)
    assert made.status_code == 201
    assert (await act(web, "/operators", body, token=bo)).json() == made.json()


async def test_a_key_is_forgotten_after_a_day(web: Site) -> None:
    body = {"devices": ["d1"], "reason": "burnt"}
    await web.enrol("d1")
    assert (await act(web, "/devices/quarantine", body)).json() == {"changed": 1}
    web.plant.clock.advance(KEPT_S + 1)
    await act(web, "/devices/release", body, key="another-key-that-is-long")  # an act that takes old answers away
    assert (await act(web, "/devices/quarantine", body)).json() == {"changed": 1}


async def test_keys_that_are_refused(web: Site) -> None:
    for key in ("short", "x" * 129, "with spaces in it, many"):
        assert problem(await act(web, "/devices/quarantine", {"devices": ["d1"], "reason": "x"}, key))[0] == 422


async def test_an_answer_that_was_altered_is_not_given(web: Site) -> None:
    await web.enrol("d1")
    body = {"devices": ["d1"], "reason": "burnt"}
    await act(web, "/devices/quarantine", body)
    with sqlite3.connect(web.plant.folder / "state.db") as database:
        database.execute("UPDATE answers SET answer = zeroblob(40)")
    database.close()
    assert problem(await act(web, "/devices/quarantine", body)) == (409, "answer_altered")


async def test_who_dies_between_the_commit_and_the_answer_has_acted_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    plant = Plant(tmp_path)
    try:
        async with site_of(plant, first) as web:
            await web.enrol("d1")
            await web.release()
            await web.roll_out()
            transact = plant.store.transact

            async def dies(lane: Any, work: Any) -> Any:
                await transact(lane, work)
                raise RuntimeError("killed after the commit")

            plant.store.transact = dies  # type: ignore[method-assign]
            with capture_logs():
                lost = await act(web, "/rollouts/spring/halt", {"reason": "smoke"})
            assert lost.status_code == 500
        await plant.restart()
        async with site_of(plant, second) as web:
            told = await act(web, "/rollouts/spring/halt", {"reason": "smoke"})
            assert (told.status_code, told.json()["phase"], told.json()["changed"]) == (200, "halted", True)
            events = (await web.ops("GET", "/rollouts/spring/explain")).json()["events"]
            assert [item["code"] for item in events].count("operator_halt") == 1
    finally:
        await plant.close()


async def test_who_dies_before_the_commit_has_not_acted(tmp_path: Path) -> None:
    async with site(tmp_path) as web:
        await web.enrol("d1")
        web.plant.store.fails = 2  # the look for the key, and whatever comes next
        assert problem(await act(web, "/devices/quarantine", {"devices": ["d1"], "reason": "x"})) == (503, "store")
        web.plant.store.fails = 0
        answer = await act(web, "/devices/quarantine", {"devices": ["d1"], "reason": "x"})
        assert (answer.json(), "idempotency-replayed" in answer.headers) == ({"changed": 1}, False)


async def test_what_cannot_be_shown_does_not_undo_a_stop(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await web.enrol("d1")
    await web.release()
    await web.roll_out()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("orchestrator.engine.insight.views.rollout_view", broken)
        assert problem(await act(web, "/rollouts/spring/halt", {"reason": "smoke"})) == (500, "internal")
    assert logs[0]["event"] == "act.not_shown"
    assert (await web.ops("GET", "/rollouts/spring")).json()["phase"] == "halted"


async def test_two_at_once_under_one_key_act_once(web: Site) -> None:
    body = {"devices": [{"id": "d1", "model": "m1"}]}
    answers = await asyncio.gather(*(act(web, "/devices", body) for _ in range(5)))
    assert {item.status_code for item in answers} == {201}
    assert len({item.json()["tokens"]["d1"] for item in answers}) == 1


async def test_two_who_edit_one_rollout_do_not_overwrite_each_other(web: Site) -> None:
    await web.release()
    await web.ops("POST", "/rollouts", PLAN)
    seen = (await web.ops("GET", "/rollouts/spring")).headers["etag"]
    plan = PLAN | {"stages": [{"devices": 1}, {"devices": "rest"}]}
    body = {"plan": plan, "reason": "a canary"}
    assert (await act(web, "/rollouts/spring/edit", body, **{"If-Match": seen})).json()["version"] == 2
    late = await act(
        web, "/rollouts/spring/edit", body | {"reason": "mine"}, "the-second-persons-key", **{"If-Match": seen}
    )
    assert problem(late) == (412, "changed")
    now = (await web.ops("GET", "/rollouts/spring")).headers["etag"]
    assert now != seen
    stopped = await act(web, "/rollouts/spring/start", {}, "the-third-persons-key", **{"If-Match": f'"x", {now}'})
    assert stopped.status_code == 200
    late = await act(web, "/rollouts/spring/abort", {"reason": "x"}, "the-fourth-persons-key", **{"If-Match": now})
    assert problem(late) == (412, "changed")


async def test_reports_do_not_change_the_mark_and_facts_do(web: Site) -> None:
    await web.enrol("d1", "d2")
    seen = (await web.ops("GET", "/devices/d1")).headers["etag"]
    hello = {"v": 1, "dev": "d1", "model": "m1", "ver": "1.0.1", "rel": 1, "boot": "b", "n": 0}
    await web.as_device("d1", "POST", "/api/v1/hello", json=hello)
    assert (await web.ops("GET", "/devices/d1")).headers["etag"] == seen
    body = {"devices": [{"id": "d1", "site": "berlin"}]}
    assert (await act(web, "/devices/facts", body, **{"If-Match": seen})).json() == {"changed": ["d1"]}
    late = await act(web, "/devices/facts", body, "the-second-persons-key", **{"If-Match": seen})
    assert problem(late) == (412, "changed")
    both = {"devices": [{"id": "d1", "site": "x"}, {"id": "d2", "site": "x"}]}
    late = await act(web, "/devices/facts", both, "the-third-persons-key", **{"If-Match": seen})
    assert problem(late) == (400, "bad_request")
