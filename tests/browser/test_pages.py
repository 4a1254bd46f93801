"""The pages in real Chromium: nothing is complained of, and everybody can use them. `test_live` has how they follow."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import watch
from tests.browser.screenshots import EVERYTHING, LOOKS, PAGES
from tests.support.pages import Served, sign_in
from tests.support.world import COMPLETE, HALTED, RUNNING

pytestmark = pytest.mark.asyncio(loop_scope="module")
MAX_PAGE_BYTES = 200_000
_PARTS = """performance.getEntries()
    .filter(it => ["navigation", "link", "script", "css", "img"].includes(it.initiatorType))
    .map(it => [it.name, it.initiatorType, it.decodedBodySize])"""
"""What a page consists of; sizes as they are before any compression."""


async def faults_of(page: Page, part: str | None = None) -> list[str]:
    """Return what keeps people from using a page, or a part of it, as axe-core finds it."""
    found = (await Axe().run(page, context=part)).response["violations"]
    return [f"{item['id']}: {node['html'][:160]}" for item in found for node in item["nodes"]]


@pytest.mark.parametrize("look", LOOKS)
async def test_no_page_complains_and_everybody_can_use_it(browser: Browser, served: Served, look: str) -> None:
    watched = await watch(browser, served, EVERYTHING, **LOOKS[look])
    for name, path in PAGES.items():
        page = await watched.go(path)
        assert await faults_of(page) == [], name
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is wider than the window"
    assert watched.faults == []
    await watched.page.close()


async def test_what_is_written_in_a_form_is_legible_to_all(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ann")
    page = await watched.go(f"/rollouts/{RUNNING}")
    await page.get_by_role("group", name="Acts").get_by_role("button", name="Halt").click()
    dialog = page.get_by_role("dialog", name=f"Halt: {RUNNING}")
    await expect(dialog.get_by_label("Reason")).to_be_focused()
    assert await faults_of(page, "#act-halt") == []
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    assert watched.faults == []
    await page.close()


async def test_a_page_is_small(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, EVERYTHING)
    for path in PAGES.values():
        page = await watched.go(path)
        await page.wait_for_load_state("load")
        parts: list[list[Any]] = await page.evaluate(_PARTS)
        assert {kind for _, kind, _ in parts} >= {"navigation", "link", "script"}
        assert 2_000 < sum(size for _, _, size in parts) < MAX_PAGE_BYTES, parts
    await watched.page.close()


async def test_a_person_pauses_and_resumes(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ann")
    page = await watched.go(f"/rollouts/{RUNNING}")
    acts = page.get_by_role("group", name="Acts")
    await acts.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog", name=f"Pause: {RUNNING}")
    await dialog.get_by_label("Reason").fill("lunch")
    await dialog.get_by_role("button", name="Pause").dblclick()
    await expect(page.get_by_role("status")).to_contain_text("is paused now")
    await expect(page.locator("h1")).to_contain_text("paused")
    served.world.plant.clock.advance(5)
    await acts.get_by_role("button", name="Resume").click()
    await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("status")).to_contain_text("is running now")
    assert watched.faults == []
    await page.close()


async def test_enter_decides_nothing_where_there_are_two_answers(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ben")
    page = await watched.go(f"/rollouts/{HALTED}")
    why = page.get_by_label("Why you approve or reject proposal 1")
    await why.fill("no: it burns")
    await why.press("Enter")
    await expect(why).to_have_value("no: it burns")
    await page.reload()
    await expect(page.get_by_role("region", name="Proposal 1")).to_contain_text("0 of 1 approvals")
    assert watched.faults == []
    await page.close()


async def test_who_follows_a_link_in_a_message_needs_not_sign_in_again(browser: Browser, served: Served) -> None:
    context, place = await browser.new_context(), f"/devices?where={quote('rel < 30')}"
    page, other = await context.new_page(), await context.new_page()
    await sign_in(page, served.url, served.world.tokens["vic"])
    link = f'<!doctype html><title>Messages</title><a href="{served.url}{place}">the alert</a>'
    await other.set_content(link)
    await other.get_by_role("link", name="the alert").click()
    await other.wait_for_url(served.url + place)
    await expect(other.get_by_role("heading", name="Devices")).to_be_visible()
    await other.goto("about:blank")
    await other.set_content(link)
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(f"{served.url}/login")
    await other.get_by_role("link", name="the alert").click()
    await other.wait_for_url(f"{served.url}/login?**")
    await other.get_by_label("Operator token").fill(served.world.tokens["vic"])
    await other.get_by_role("button", name="Sign in").click()
    await other.wait_for_url(served.url + place)
    await context.close()


async def test_another_person_approves(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ben")
    page = await watched.go(f"/rollouts/{HALTED}")
    await page.get_by_label("Why you approve or reject proposal 1").fill("saw the batch")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("status")).to_contain_text("Proposal 1 is approved now")
    assert watched.faults == []
    await page.close()


@pytest.mark.parametrize("look", LOOKS)
async def test_a_device_is_found_quarantined_and_let_back(browser: Browser, served: Served, look: str) -> None:
    watched = await watch(browser, served, "ann", **LOOKS[look])
    name = f"sensor-12-{list(LOOKS).index(look) + 40:04}"
    page = await watched.go("/devices")
    field = page.get_by_label("Selector, or the name of a device")
    await field.fill("model = sensor-12")
    await field.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("^")
    await field.fill(f'model == "sensor-12" and id == "{name}"')
    await field.press("Enter")
    await expect(page.get_by_role("alert")).to_be_hidden()
    await page.get_by_role("link", name=name).click()
    acts = page.get_by_role("group", name="Acts")
    await acts.get_by_role("button", name="Quarantine").click()
    dialog = page.get_by_role("dialog", name=f"Quarantine: {name}")
    await expect(dialog.get_by_label("Reason")).to_be_focused()
    assert await faults_of(page, "#act-quarantine") == []
    await dialog.get_by_label("Reason").fill("it smokes")
    await dialog.get_by_role("button", name="Quarantine").dblclick()
    await expect(page.get_by_role("status")).to_contain_text(f"{name} is in quarantine now")
    await expect(page.locator("h1")).to_contain_text("in quarantine")
    await acts.get_by_role("button", name="Let back").click()
    dialog = page.get_by_role("dialog", name=f"Let back: {name}")
    await dialog.get_by_label("Reason").fill("it was the kettle")
    await dialog.get_by_role("button", name="Let back").click()
    await expect(page.get_by_role("status")).to_contain_text(f"{name} is let back")
    assert watched.faults == []
    await page.close()


@pytest.mark.parametrize("look", LOOKS)
async def test_an_account_is_added_given_a_token_and_removed(browser: Browser, served: Served, look: str) -> None:
    watched = await watch(browser, served, EVERYTHING, **LOOKS[look])
    page = await watched.go("/accounts")
    await page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog", name="Add an account")
    assert await faults_of(page, "#act-add") == []
    await dialog.get_by_label("Account").fill(f"eve-{look}")
    await dialog.get_by_label("Person behind it").fill("eve")
    await dialog.get_by_role("checkbox", name="viewer may").check()
    await dialog.get_by_label("Reason").fill("she joins")
    await dialog.get_by_role("button", name="Add").click()
    await expect(page.get_by_role("status")).to_contain_text("Its token, which is shown this once: otad_op_")
    await page.get_by_role("button", name=f"New token for eve-{look}").click()
    dialog = page.get_by_role("dialog", name=f"New token: eve-{look}")
    await dialog.get_by_label("Reason").fill("lost the first")
    await dialog.get_by_role("button", name="Issue").click()
    await expect(page.get_by_role("status")).to_contain_text(f"A token for eve-{look}")
    eve = page.locator(".tile", has=page.get_by_role("heading", name=f"eve-{look}"))
    await eve.get_by_role("button", name="Revoke token").first.click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("status")).to_contain_text("opens nothing any more")
    await eve.get_by_role("button", name=f"Remove eve-{look}").click()
    dialog = page.get_by_role("dialog", name=f"Remove: eve-{look}")
    await dialog.get_by_label("Reason").fill("has left")
    await dialog.get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("status")).to_contain_text(f"eve-{look} was removed")
    assert watched.faults == []
    await page.close()


@pytest.mark.parametrize(
    ("look", "button", "state"),
    [("light", "Approve", "approved"), ("dark", "Reject", "rejected"), ("phone", "Approve", "approved")],
)
async def test_what_waits_is_decided_by_another_person(
    browser: Browser, served: Served, look: str, button: str, state: str
) -> None:
    asks = await watch(browser, served, EVERYTHING, **LOOKS[look])
    page = await asks.go("/accounts")
    await page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog", name="Add an account")
    await dialog.get_by_label("Account").fill(f"olga-{look}")
    await dialog.get_by_label("Person behind it").fill("olga")
    await dialog.get_by_role("checkbox", name="operator may").check()
    await dialog.get_by_label("Reason").fill("she joins")
    await dialog.get_by_role("button", name="Add").click()
    await expect(page.get_by_role("status")).to_contain_text("waits for others")
    await page.close()
    decides = await watch(browser, served, "cleo", **LOOKS[look])
    page = await decides.go("/approvals")
    waits = page.get_by_role("region", name="Proposal").filter(has_text=f"olga-{look}")
    await waits.get_by_role("textbox").fill("I know her")
    await waits.get_by_role("button", name=button).click()
    await expect(page.get_by_role("status")).to_contain_text(f"is {state} now")
    assert asks.faults + decides.faults == []
    await page.close()


async def test_a_review_is_closed(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ben")
    page = await watched.go("/approvals")
    await page.get_by_label("What you found in review 1").fill("it was right")
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("status")).to_contain_text("Review 1 is closed")
    assert watched.faults == []
    await page.close()


@pytest.mark.parametrize("look", LOOKS)
async def test_the_audit_log_is_read_and_exported(browser: Browser, served: Served, look: str) -> None:
    watched = await watch(browser, served, "vic", **LOOKS[look])
    page = await watched.go("/audit")
    await expect(page.get_by_text("form one chain")).to_be_visible()
    await page.locator("summary").first.click()
    assert await faults_of(page) == []
    await page.get_by_role("link", name="Older").click()
    await page.get_by_role("link", name="To the newest").click()
    await page.get_by_label("Action begins with").fill("rollout.created")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("tbody tr")).to_have_count(4)
    async with page.expect_download() as coming:
        await page.get_by_role("link", name="Export everything").click()
    assert (await coming.value).suggested_filename == "audit.ndjson"
    assert watched.faults == []
    await page.close()


async def test_who_signs_in_again_is_told_what_became_of_the_last_form(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ann")
    page = await watched.go("/devices/sensor-12-0099")
    await page.get_by_role("button", name="Quarantine").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill("it smokes")
    await page.context.set_offline(True)  # the daemon is gone before it hears of it
    await dialog.get_by_role("button", name="Quarantine").click(no_wait_after=True)
    await page.wait_for_function("location.protocol === 'chrome-error:'")
    await page.context.set_offline(False)
    await page.context.clear_cookies()
    await watched.go("/devices/sensor-12-0099")
    await page.get_by_label("Operator token").fill(served.world.tokens["ann"])
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("What you sent last was not carried out")
    await expect(page.locator("h1")).not_to_contain_text("in quarantine")
    await page.close()


async def test_light_and_dark_are_a_choice_that_stays(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "vic", color_scheme="light")
    page = await watched.go("/")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(colour)
    await page.get_by_role("button", name="Switch between light and dark").click()
    dark = await page.evaluate(colour)
    assert dark != light
    await watched.go("/rollouts")
    assert await page.evaluate(colour) == dark
    await page.close()


async def test_without_scripts_the_pages_work_all_the_same(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ann", java_script_enabled=False)
    page = await watched.go(f"/rollouts/{COMPLETE}")
    await expect(page.locator("h1")).to_contain_text("done")
    page = await watched.go(f"/rollouts/{RUNNING}")
    await page.get_by_role("group", name="Acts").get_by_role("button", name="Halt").click()
    await page.get_by_role("dialog").get_by_label("Reason").fill("smoke")
    await page.get_by_role("dialog").get_by_role("button", name="Halt").click()
    await expect(page.get_by_role("status")).to_contain_text("is halted now")
    await page.close()
