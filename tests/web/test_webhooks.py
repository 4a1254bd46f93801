"""Webhooks over the API: who may, what is shown once, and what never."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from orchestrator.core.trust.roles import Role
from tests.web.site import Site, problem

URL = "https://hooks.example.net/T0/B1?token=secret-word"


async def test_a_secret_is_shown_once_and_an_address_without_its_query(web: Site) -> None:
    with capture_logs() as logs:
        made = await web.ops("POST", "/webhooks", {"url": URL, "events": ["rollout.*"]})
        assert made.status_code == 201
        secret = made.json()["secret"]
        assert secret.startswith("whsec_")
        name = made.json()["id"]
        shown = [
            await web.ops("GET", "/webhooks"),
            await web.ops("GET", f"/webhooks/{name}"),
            await web.ops("POST", f"/webhooks/{name}/test", {}),
            await web.ops("POST", f"/webhooks/{name}/resume", {"skip": True}),
            await web.ops("GET", "/audit"),
            await web.ops("POST", f"/webhooks/{name}/remove", {}),
        ]
    assert [answer.status_code for answer in shown] == [200] * 6
    for text in (*(answer.text for answer in shown), str(logs)):
        assert secret not in text
        assert "secret-word" not in text
    (listed,) = shown[0].json()
    assert listed["url"] == "https://hooks.example.net/T0/B1?(removed)"
    assert (listed["events"], listed["state"], listed["delivered"]) == (["rollout.*"], "active", 0)
    assert (await web.ops("GET", "/webhooks")).json() == []


async def test_a_request_that_is_repeated_adds_one(web: Site) -> None:
    key = {"Idempotency-Key": "a-key-that-is-long-enough"}
    token = await web.operator("root", Role.ADMIN)
    headers = {"Authorization": f"Bearer {token}"} | key
    first, again = [await web.http.post("/api/v1/webhooks", json={"url": URL}, headers=headers) for _ in range(2)]
    assert first.json() == again.json()
    assert len((await web.ops("GET", "/webhooks")).json()) == 1


async def test_rotating_shows_the_new_secret_and_when_the_old_one_ends(web: Site) -> None:
    made = (await web.ops("POST", "/webhooks", {"url": URL})).json()
    again = (await web.ops("POST", f"/webhooks/{made['id']}/rotate", {"overlap_h": 2})).json()
    assert again["secret"].startswith("whsec_")
    assert again["secret"] != made["secret"]
    assert again["old_until"] == web.plant.clock() + 7200
    at_once = (await web.ops("POST", f"/webhooks/{made['id']}/rotate", {"overlap_h": 0})).json()
    assert at_once["old_until"] is None


async def test_the_broker_has_no_secret(web: Site) -> None:
    made = (await web.ops("POST", "/webhooks", {"url": "mqtt:"})).json()
    assert made["secret"] is None
    assert problem(await web.ops("POST", f"/webhooks/{made['id']}/rotate", {})) == (400, "bad_request")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"url": "https://169.254.169.254/"}, (400, "bad_url")),
        ({"url": "file:///etc/passwd"}, (400, "bad_url")),
        ({"url": URL, "events": ["rollout.unheard"]}, (400, "bad_events")),
        ({"url": URL, "events": []}, (422, "invalid")),
        ({"url": URL, "secret": "whsec_mine"}, (422, "invalid")),
    ],
)
async def test_what_cannot_be_is_refused(web: Site, body: dict[str, object], said: tuple[int, str]) -> None:
    assert problem(await web.ops("POST", "/webhooks", body)) == said


async def test_what_is_not_there_is_not_found(web: Site) -> None:
    for path in ("rotate", "resume", "test", "remove"):
        assert problem(await web.ops("POST", f"/webhooks/wh_none/{path}", {})) == (404, "not_found")
    assert problem(await web.ops("GET", "/webhooks/wh_none")) == (404, "not_found")


async def test_admins_alone_see_them(web: Site) -> None:
    for role in (Role.VIEWER, Role.OPERATOR, Role.APPROVER):
        token = await web.operator(f"one-{role}", role)
        assert problem(await web.ops("GET", "/webhooks", token=token)) == (403, "not_permitted")
