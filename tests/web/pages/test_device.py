"""The pages of devices: found by selector or name, told why not, quarantined and let back, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.core.model import UpdateState
from orchestrator.core.trust.roles import Role
from orchestrator.web.pages import devices as devices_module
from orchestrator.web.pages import once
from orchestrator.wire.report import Kind
from tests.support.factory import make_report
from tests.web.pages.visits import Visit, signed_in
from tests.web.site import Site, site

STAGES = [{"devices": 2, "soak": "1h"}, {"devices": "rest", "soak": "1h"}]


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Site]:
    """A site where `spring` runs on the first two of six devices."""
    async with site(tmp_path) as running:
        await running.release()
        await running.enrol("d1", "d2", "d3", "d4", "d5", "d6")
        await running.roll_out(stages=STAGES, in_flight=5)
        yield running


async def as_(web: Site, name: str, *roles: Role) -> Visit:
    return await signed_in(web, await web.operator(name, *roles))


async def quarantine_of(web: Site, device_id: str) -> str:
    found = await web.plant.store.read(lambda tx: tx.device(device_id))
    assert found is not None
    return found.quarantine


async def entries(web: Site, action: str) -> int:
    found = await web.plant.store.read(lambda tx: tx.audit_entries(0, 1000))
    return sum(item.action == action for item in found)


async def test_the_list_is_paged(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "PAGE", 4)
    browser = await signed_in(web)
    first = (await browser.get("/devices")).text
    assert 'href="/devices/d4"' in first
    assert 'href="/devices/d5"' not in first
    assert 'href="/devices?after=d4"' in first
    second = (await browser.get("/devices?after=d4")).text
    assert 'href="/devices/d5"' in second
    assert "after=d6" not in second


async def test_a_selector_filters_and_a_wrong_one_shows_its_place(web: Site) -> None:
    browser = await signed_in(web)
    found = (await browser.get("/devices", **{})).text
    assert "Devices" in found
    some = (await browser.http.get("/devices", params={"where": 'id in ("d2", "d3")'})).text
    assert 'href="/devices/d3"' in some
    assert 'href="/devices/d1"' not in some
    wrong = (await browser.http.get("/devices", params={"where": "model = m1"})).text
    assert 'role="alert"' in wrong
    assert "^" in wrong
    assert "write ==" in wrong
    none = (await browser.http.get("/devices", params={"where": 'model == "m9"'})).text
    assert "No device is meant by this." in none
    long = (await browser.http.get("/devices", params={"where": "x" * 5000})).text
    assert "a selector has at most" in long


async def test_a_name_leads_to_the_device(web: Site) -> None:
    browser = await signed_in(web)
    answer = await browser.http.get("/devices", params={"where": " d3 "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/devices/d3")
    assert (await browser.get("/devices/nobody")).status_code == 404


async def test_what_is_shown_is_escaped(web: Site) -> None:
    browser = await signed_in(web)
    text = (await browser.http.get("/devices", params={"where": '"><script>alert(1)</script>'})).text
    assert "<script>alert" not in text


async def test_the_page_says_why_not_and_what_happened(web: Site) -> None:
    [first, second] = await web.plant.store.read(lambda tx: tx.updates_in(1, [UpdateState.OFFERED]))
    await web.plant.record(make_report(first, Kind.FAILED, 1, code="self_test"))
    browser = await signed_in(web)
    failed = (await browser.get(f"/devices/{first.device_id}")).text
    assert "It failed: self_test." in failed
    assert "<code>self_test</code>" in failed
    waits = (await browser.get(f"/devices/{second.device_id}")).text
    assert "It was offered the release and has not answered yet." in waits
    assert "may change" in waits
    others = {f"d{at}" for at in range(1, 7)} - {first.device_id, second.device_id}
    left = (await browser.get(f"/devices/{min(others)}")).text
    assert "Its turn has not come: stage 1 of 2 is open." in left
    assert "No rollout has taken it in yet." in left


async def test_a_recall_is_told(web: Site) -> None:
    [first, _] = await web.plant.store.read(lambda tx: tx.updates_in(1, [UpdateState.OFFERED]))
    await web.plant.send()
    await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
    await web.plant.send()
    text = (await (await signed_in(web)).get(f"/devices/{first.device_id}")).text
    assert "It was told to drop the release and has not answered yet." in text
    assert "recall" in text


async def test_quarantine_and_back(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    said = await browser.send("/devices/d3", "/devices/d3/quarantine", reason="it smokes")
    assert said == "Done. d3 is in quarantine now; no rollout takes it in."
    assert await quarantine_of(web, "d3") == "it smokes"
    page = (await browser.get("/devices/d3")).text
    assert "In quarantine since" in page
    assert 'action="/devices/d3/quarantine"' not in page
    only = (await browser.get("/devices?quarantined=yes")).text
    assert 'href="/devices/d3"' in only
    assert 'href="/devices/d4"' not in only
    said = await browser.send("/devices/d3", "/devices/d3/release", reason="it was the kettle")
    assert said.startswith("Done. d3 is let back")
    assert await quarantine_of(web, "d3") == ""


async def test_an_old_page_lets_nothing_out_of_another_quarantine(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    await browser.send("/devices/d3", "/devices/d3/quarantine", reason="it smokes")
    old = await browser.form("/devices/d3", "/devices/d3/release") | {"reason": "fine"}
    await browser.send("/devices/d3", "/devices/d3/release", reason="fine")
    web.plant.clock.advance(60)
    await browser.send("/devices/d3", "/devices/d3/quarantine", reason="it burns")
    said = await browser.submit("/devices/d3/release", old)
    assert said.startswith("Not done. d3 came into another quarantine after this page was made")
    assert await quarantine_of(web, "d3") == "it burns"


async def test_a_form_that_is_sent_twice_acts_once(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    action = "/devices/d3/quarantine"
    fields = await browser.form("/devices/d3", action) | {"reason": "it smokes"}
    assert (await browser.submit(action, fields)).startswith("Done.")
    await browser.send("/devices/d3", "/devices/d3/release", reason="fine")
    assert (await browser.submit(action, fields)).startswith("Not done. quarantine was done already, at ")
    assert await quarantine_of(web, "d3") == ""
    assert await entries(web, "devices.quarantined") == 1


@pytest.mark.parametrize("key", ["", "short", "x" * 25, "ü" * 24])
async def test_a_form_without_a_key_of_ours_does_nothing(web: Site, key: str) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    fields = await browser.form("/devices/d3", "/devices/d3/quarantine") | {"reason": "x", "key": key}
    said = await browser.submit("/devices/d3/quarantine", fields)
    assert said == "Not done. this form is none that a page of ours shows; load the page again"
    assert await quarantine_of(web, "d3") == ""


async def test_who_may_not_is_told(web: Site) -> None:
    browser = await as_(web, "vic", Role.VIEWER)
    assert 'action="/devices/d3/quarantine"' not in (await browser.get("/devices/d3")).text
    fields = {"csrf": (await browser.form("/devices/d3", "/logout"))["csrf"], "key": once.fresh(), "reason": "x"}
    said = await browser.submit("/devices/d3/quarantine", fields)
    assert said.startswith("Not done. vic may not quarantine devices and release them")


async def test_who_is_signed_out_meanwhile_is_told_what_became_of_it(web: Site) -> None:
    """A daemon that starts again knows no session; the form that was sent to it, or before it died, has its fate."""
    token = await web.operator("ann", Role.OPERATOR)
    browser = await signed_in(web, token)
    action = "/devices/d3/quarantine"
    fields = await browser.form("/devices/d3", action) | {"reason": "it smokes"}
    for done in (False, True):
        if done:
            await browser.submit(action, fields)
        await browser.http.post("/logout", data=await browser.form("/devices/d3", "/logout"))
        answer = await browser.http.post(action, data=fields)
        assert answer.headers["location"] == f"/login?next=/devices/d3&tried={fields['key']}"
        login = await browser.get(answer.headers["location"])
        assert f'name="tried" value="{fields["key"]}"' in login.text
        back = await browser.http.post("/login", data={"token": token, "next": "/devices/d3", "tried": fields["key"]})
        assert back.headers["location"] == "/devices/d3"
        page = (await browser.get("/devices/d3")).text
        assert ("What you sent last (quarantine) was carried out, once, at " in page) is done
        assert ("What you sent last was not carried out" in page) is not done
        fields = await browser.form("/devices/d3", action) | {"reason": "it smokes"} if not done else fields


async def test_the_fate_of_a_form_is_told_to_its_account_alone(web: Site) -> None:
    ann = await as_(web, "ann", Role.OPERATOR)
    fields = await ann.form("/devices/d3", "/devices/d3/quarantine") | {"reason": "it smokes"}
    await ann.submit("/devices/d3/quarantine", fields)
    token = await web.operator("dee", Role.OPERATOR)
    dee = await signed_in(web, token)
    await dee.http.post("/login", data={"token": token, "next": "/", "tried": fields["key"]})
    assert "was not carried out" in (await dee.get("/devices/d3")).text
