"""Accounts and tokens over the API."""

from __future__ import annotations

from pathlib import Path

from orchestrator.core.trust.roles import Role
from orchestrator.engine.trust.operators import DAY_S, USED_EVERY_S
from tests.web.site import TOKEN, Site, problem, site

ANN: dict[str, object] = {"name": "ann", "person": "ann", "roles": ["approver", "viewer"]}


async def test_an_operator_is_added_listed_and_known_by_the_token(web: Site) -> None:
    made = await web.ops("POST", "/operators", ANN)
    token = made.json().pop("token")
    assert (made.status_code, made.json()["operator"]) == (201, "ann")
    assert made.json()["expires_at"] == web.plant.clock() + 90 * DAY_S
    listed = await web.ops("GET", "/operators")
    (line,) = listed.json()
    assert (line["name"], line["person"], line["roles"]) == ("ann", "ann", ["viewer", "approver"])
    assert token not in listed.text
    assert (await web.ops("GET", "/releases", token=token)).status_code == 200


async def test_the_last_use_is_stored_to_the_hour(web: Site) -> None:
    token = await web.operator("ann", Role.VIEWER)

    async def used() -> float | None:
        await web.ops("GET", "/releases", token=token)
        found: float | None = (await web.ops("GET", "/operators")).json()[0]["tokens"][0]["used_at"]
        return found

    first = await used()
    assert first == web.plant.clock()
    web.plant.clock.advance(USED_EVERY_S - 1)
    assert await used() == first
    web.plant.clock.advance(1)
    assert await used() == web.plant.clock()


async def test_a_revoked_token_is_refused_from_the_next_request_on(web: Site) -> None:
    token = await web.operator("ann", Role.VIEWER)
    assert (await web.ops("GET", "/releases", token=token)).status_code == 200
    token_id = (await web.ops("GET", "/operators")).json()[0]["tokens"][0]["id"]
    revoked = await web.ops("POST", f"/tokens/{token_id}/revoke", {})
    assert (revoked.status_code, revoked.json()["revoked_at"]) == (200, web.plant.clock())
    assert problem(await web.ops("GET", "/releases", token=token)) == (401, "unauthorised")


async def test_a_token_ends_with_its_time(web: Site) -> None:
    token = await web.operator("ann", Role.VIEWER, days=1)
    web.plant.clock.advance(DAY_S - 1)
    assert (await web.ops("GET", "/releases", token=token)).status_code == 200
    web.plant.clock.advance(1)
    assert problem(await web.ops("GET", "/releases", token=token)) == (401, "unauthorised")


async def test_one_more_token_and_the_end_of_the_account(web: Site) -> None:
    first = await web.operator("ann", Role.VIEWER)
    second = (await web.ops("POST", "/operators/ann/tokens", {"days": 3})).json()["token"]
    assert second != first
    assert (await web.ops("GET", "/releases", token=second)).status_code == 200
    assert (await web.ops("POST", "/operators/ann/remove", {})).json() == {"removed": "ann"}
    for token in (first, second):
        assert problem(await web.ops("GET", "/releases", token=token)) == (401, "unauthorised")


async def test_what_cannot_be(web: Site) -> None:
    wrong: list[dict[str, object]] = [{"roles": []}, {"roles": ["boss"]}, {"days": 366}, {"days": 0}, {"extra": 1}]
    wrong.append({"person": "Ann B"})
    for body in wrong:
        assert problem(await web.ops("POST", "/operators", ANN | body)) == (422, "invalid")
    assert problem(await web.ops("POST", "/operators", ANN | {"name": "operator"})) == (409, "conflict")
    assert problem(await web.ops("POST", "/operators/ben/tokens", {})) == (404, "not_found")
    assert problem(await web.ops("POST", "/tokens/00/revoke", {})) == (404, "not_found")


async def test_the_token_file_can_be_switched_off(tmp_path: Path) -> None:
    async with site(tmp_path, operator_token="") as web:
        token = await web.operator("ann", Role.VIEWER)
        assert (await web.ops("GET", "/releases", token=token)).status_code == 200
        for wrong in (TOKEN, ""):
            assert problem(await web.ops("GET", "/releases", token=wrong)) == (401, "unauthorised")
        bare = await web.http.get("/api/v1/releases")
        assert problem(bare) == (401, "unauthorised")


async def test_who_moved_a_rollout_is_on_its_record(web: Site) -> None:
    await web.release()
    token = await web.operator("ann", Role.OPERATOR)
    plan = {"name": "spring", "release": "radio-2", "stages": [{"devices": "rest"}]}
    made = await web.ops("POST", "/rollouts", plan, token=token)
    assert made.json()["actor"] == "ann"
