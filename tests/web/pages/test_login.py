"""Signing in and out, what a session may do, and what every answer says to browsers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.core.trust.roles import Role
from orchestrator.ports import Lane
from orchestrator.web.pages import once
from orchestrator.web.pages.house import HEADERS, local
from orchestrator.web.pages.login import TRIES, TRY_EVERY_S, Tries
from tests.web.pages.visits import notice, signed_in, visit
from tests.web.site import TOKEN, Site, site

PAGES = ("/", "/rollouts", "/rollouts/spring", "/changes/fleet", "/changes/rollouts/spring")


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, public_url="https://ota.example.net") as running:
        yield running


async def test_who_is_not_signed_in_is_led_to_the_login_and_back(web: Site) -> None:
    browser = visit(web)
    for path in PAGES:
        answer = await browser.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
    assert (await browser.get("/rollouts")).headers["location"] == "/login?next=/rollouts"
    answer = await browser.sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/rollouts")
    assert "Rollouts" in (await browser.get("/rollouts")).text


async def test_the_cookie_is_kept_from_scripts_and_other_sites(web: Site) -> None:
    cookie = (await visit(web).sign_in()).headers["set-cookie"]
    assert cookie.startswith("ota=")
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert TOKEN not in cookie


async def test_with_tls_the_cookie_belongs_to_this_host_alone(secure: Site) -> None:
    cookie = (await visit(secure).sign_in()).headers["set-cookie"]
    assert cookie.startswith("__Host-ota=")
    assert "Secure" in cookie.split("; ")


@pytest.mark.parametrize("token", ["", "wrong", "otad_op_0000000000000000_" + "A" * 43, "x" * 200, "ü"])
async def test_a_wrong_token_opens_nothing(web: Site, token: str) -> None:
    answer = await visit(web).sign_in(token)
    assert answer.status_code == 403
    assert "This token opens nothing" in answer.text
    assert "set-cookie" not in answer.headers


async def test_who_shows_many_wrong_tokens_is_slowed_down(web: Site) -> None:
    browser = visit(web)
    for _ in range(TRIES):
        assert (await browser.sign_in("wrong")).status_code == 403
    assert (await browser.sign_in("wrong")).status_code == 429
    assert (await browser.sign_in(TOKEN)).status_code == 429
    web.plant.clock.advance(TRY_EVERY_S)
    assert (await browser.sign_in(TOKEN)).status_code == 303


async def test_nobody_keeps_others_at_the_same_address_from_signing_in(web: Site) -> None:
    """Behind a proxy everybody has one address."""
    token = await web.operator("ann", Role.OPERATOR)
    stranger, other = visit(web), f"otad_op_{'0' * 16}_{'A' * 43}"
    for wrong in ("wrong", other):
        answers = [await stranger.sign_in(wrong) for _ in range(TRIES + 1)]
        assert answers[-1].status_code == 429
    assert (await visit(web).sign_in(token)).status_code == 303
    guessed = token[:-1] + ("A" if token[-1] != "A" else "B")
    answers = [await stranger.sign_in(guessed) for _ in range(TRIES + 1)]
    assert answers[-1].status_code == 429  # nor is one account tried without end


def test_tries_with_ever_other_tokens_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.web.pages.login._MOST_KNOWN", 3)
    tries = Tries(lambda: 100.0)
    for number in range(10):
        tries.wrong("127.0.0.1", f"otad_op_{number:016}_A")
    assert len(tries._free_at) <= 3


async def test_who_mistypes_goes_where_they_wanted_all_the_same(web: Site) -> None:
    browser, key = visit(web), once.fresh()
    wrong = await browser.http.post("/login", data={"token": "wrong", "next": "/rollouts", "tried": key})
    assert '<input type="hidden" name="next" value="/rollouts">' in wrong.text
    assert f'<input type="hidden" name="tried" value="{key}">' in wrong.text


async def test_what_an_address_asks_for_is_asked_again_after_signing_in(web: Site) -> None:
    location = (await visit(web).get("/devices?where=rel%20%3C%203&quarantined=yes")).headers["location"]
    assert parse_qs(urlsplit(location).query) == {"next": ["/devices?where=rel%20%3C%203&quarantined=yes"]}


async def test_who_signs_in_again_leaves_no_session_behind(web: Site) -> None:
    browser = await signed_in(web)
    before = browser.http.cookies["ota"]
    await browser.sign_in()
    assert browser.http.cookies["ota"] != before
    other = visit(web)
    other.http.cookies.set("ota", before)
    assert (await other.get("/")).status_code == 303


async def test_who_comes_from_another_site_is_led_on_by_a_page_of_ours(web: Site) -> None:
    """Browsers send no cookie of ours with a link in a message, but with what a page of ours leads to."""
    token = await web.operator("ann", Role.VIEWER)
    led = await visit(web).get("/rollouts?x=1", **{"Sec-Fetch-Site": "cross-site"})
    assert led.status_code == 200
    found = re.search(r'<meta http-equiv="refresh" content="0; url=([^"]+)">', led.text)
    assert found is not None
    assert found[1] == "/login?next=/rollouts%3Fx%3D1"
    browser = await signed_in(web, token)
    assert (await browser.get(found[1])).headers["location"] == "/rollouts?x=1"
    assert (await browser.get("/login?next=//evil.test")).headers["location"] == "/"
    token_id = token.split("_")[2]
    await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.revoke_token(token_id, web.plant.clock()))
    assert "Operator token" in (await browser.get(found[1])).text  # and in no circle


async def test_a_revoked_token_ends_its_sessions_at_once(web: Site) -> None:
    token = await web.operator("ann", Role.VIEWER)
    browser = await signed_in(web, token)
    assert (await browser.get("/")).status_code == 200
    token_id = token.split("_")[2]
    await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.revoke_token(token_id, web.plant.clock()))
    assert (await browser.get("/")).status_code == 303


async def test_signing_out_ends_the_session(web: Site) -> None:
    browser = await signed_in(web)
    kept = browser.http.cookies["ota"]
    fields = await browser.form("/", "/logout")
    assert (await browser.http.post("/logout", data=fields | {"csrf": "x"})).status_code == 403
    assert (await browser.http.post("/logout", data=fields)).headers["location"] == "/login"
    browser.http.cookies.set("ota", kept)
    assert (await browser.get("/")).status_code == 303
    assert (await browser.http.post("/logout", data=fields)).headers["location"] == "/login"


async def test_every_answer_carries_the_policy(web: Site) -> None:
    browser = await signed_in(web)
    answers = [await browser.get(path) for path in ("/", "/rollouts", "/rollouts/none", "/login")]
    answers.append(await visit(web).get("/"))
    answers.append(await browser.http.post("/rollouts/none/pause", data={}))
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        for word in ("<style", "style=", " onclick", "http://", "https://"):
            assert word not in answer.text


async def test_a_page_that_is_not_there_says_so(web: Site) -> None:
    answer = await (await signed_in(web)).get("/rollouts/none")
    assert answer.status_code == 404
    assert "there is no rollout" in answer.text


async def test_a_part_of_an_open_page_is_loaded_anew_when_nobody_is_signed_in(web: Site) -> None:
    answer = await visit(web).get("/rollouts", **{"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"]) == (204, "true")


async def test_forms_of_other_sites_change_nothing(web: Site) -> None:
    browser = await signed_in(web)
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert (await browser.http.post("/logout", data={"csrf": "x"}, headers=headers)).status_code == 403
    assert (await browser.http.post("/login", data={"token": TOKEN}, headers=headers)).status_code == 403
    assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize("body", [b"\xff=1", b"a=%ff", b"a=1&a=2", b"&".join(b"f%d=1" % at for at in range(40))])
async def test_what_is_no_form_is_refused(web: Site, body: bytes) -> None:
    answer = await visit(web).http.post("/login", content=body)
    assert answer.status_code == 400
    assert "load the page again" in answer.text


@pytest.mark.parametrize(
    ("place", "led"),
    [
        ("/rollouts/a", "/rollouts/a"),
        ("//evil.test", "/"),
        ("/\\evil.test", "/"),
        ("https:evil", "/"),
        ("/a\nb", "/"),
        ("", "/"),
        ("/" * 600, "/"),
    ],
)
def test_nobody_is_led_elsewhere(place: str, led: str) -> None:
    assert local(place) == led


async def test_files_are_named_by_their_bytes_and_kept_for_ever(web: Site) -> None:
    browser = visit(web)
    page = (await browser.get("/login")).text
    assert "/static/pages.css?v=" in page
    answer = await browser.get("/static/pages.css")
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    for name in ("none.css", "../house.py", "vendor/SHA256SUMS"):
        assert (await browser.get(f"/static/{name}")).status_code == 404
    assert notice(page) == ""
