"""Pages that are open in real Chromium: they follow what happens, survive an outage, and disturb nobody who writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.core.trust.roles import Caller, Role
from orchestrator.engine.rollouts import quarantine
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.web.pages import changes as changes_module
from orchestrator.web.pages import fleet as fleet_module
from orchestrator.web.server import HttpServer
from tests.browser.conftest import watch
from tests.browser.test_pages import faults_of
from tests.support.pages import Served, sign_in
from tests.support.world import HALTED, RUNNING, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
FOLLOWS_MS = 15_000
DEVICE = "sensor-12-0200"
_numbers = count(1)


async def confirm(world: World) -> None:
    """Let three devices report that they are healthy."""
    it = world.plant
    rollout = await it.store.read(lambda tx: tx.rollout_named(RUNNING))
    assert rollout is not None
    await it.confirm((await it.updates(rollout, UpdateState.OFFERED))[:3])


async def leave_out(world: World) -> None:
    """Quarantine one device more."""
    it, name = world.plant, f"camera-2-{next(_numbers) + 100:04}"
    await it.write(lambda tx: quarantine.enter(tx, [name], "smoke", it.clock(), actor="ann"))


async def turn(world: World) -> None:
    """Let a device into quarantine, or out of it."""
    it = world.plant
    device = await it.store.read(lambda tx: tx.device(DEVICE))
    assert device is not None
    act = quarantine.leave if device.quarantine else quarantine.enter
    await it.write(lambda tx: act(tx, [DEVICE], "smoke", it.clock(), actor="ann"))


async def propose(world: World) -> None:
    """Let one person more ask for what others must agree to."""
    it, name = world.plant, f"operator-{next(_numbers)}"
    wish = Wish(Caller(name, name, frozenset({Role.OPERATOR})), "the bad batch is gone")
    with pytest.raises(ApprovalNeededError):
        await approvals.command(it.conductor, it.store, it.keyring, Rules(), it.clock, HALTED, Command.RESUME, wish)


@dataclass(frozen=True)
class Followed:
    """A page, a part of it that changes, and what changes it."""

    path: str
    part: Callable[[Page], Locator]
    act: Callable[[World], Awaitable[None]]


def healthy(page: Page) -> Locator:
    return page.locator(".facts div", has_text="Healthy").locator("dd")


async def text_of(part: Locator) -> str:
    """Return a text as `expect` compares it."""
    return " ".join((await part.text_content() or "").split())


PAGES = {
    "fleet": Followed("/", lambda page: page.locator(".figure", has_text="Quarantined").locator("strong"), leave_out),
    "rollouts": Followed(
        "/rollouts", lambda page: page.get_by_role("row", name=RUNNING).locator("td.num").first, confirm
    ),
    "rollout": Followed(f"/rollouts/{RUNNING}", healthy, confirm),
    "approvals": Followed("/approvals", lambda page: page.locator("#waiting .count"), propose),
    "device": Followed(f"/devices/{DEVICE}", lambda page: page.locator("h1"), turn),
}
_every_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the census of an open page be half a second old, so that tests need not wait."""
    monkeypatch.setattr(fleet_module, "CENSUS_S", 0.5)


@_every_page
async def test_a_page_follows_and_catches_up_when_its_connection_was_lost(
    browser: Browser, served: Served, name: str
) -> None:
    shown = PAGES[name]
    watched = await watch(browser, served, "vic")
    page = await watched.go(f"{shown.path}?sort=name&after=x#main")
    asked: list[str] = []
    page.on(
        "request", lambda it: asked.append(it.url.removeprefix(served.url)) if it.resource_type == "fetch" else None
    )
    part = shown.part(page)
    before = await text_of(part)
    await shown.act(served.world)
    await expect(part).not_to_have_text(before, timeout=FOLLOWS_MS)
    assert watched.faults == []
    assert set(asked) == {f"{shown.path}?sort=name&after=x"}  # what the address asks for is asked for again
    assert page.url == f"{served.url}{shown.path}?sort=name&after=x#main"
    assert await faults_of(page) == []
    before = await text_of(part)
    await page.context.set_offline(True)
    await shown.act(served.world)
    await page.wait_for_timeout(2_500)
    assert await text_of(part) == before
    await page.context.set_offline(False)
    await expect(part).not_to_have_text(before, timeout=FOLLOWS_MS)
    await page.close()


@_every_page
async def test_a_page_that_is_refused_the_stream_follows_all_the_same(
    browser: Browser, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "MOST_STREAMS", 0)
    shown = PAGES[name]
    watched = await watch(browser, served, "vic")
    part = shown.part(await watched.go(shown.path))
    before = await text_of(part)
    await shown.act(served.world)
    await expect(part).not_to_have_text(before, timeout=FOLLOWS_MS)
    await watched.page.close()


@asynccontextmanager
async def serving_at(served: Served, port: int) -> AsyncIterator[int]:
    """Serve the pages once more, at a port, and stop in the end."""
    server = HttpServer(served.site.app, "127.0.0.1", port, 64)
    task = asyncio.create_task(server.run())
    try:
        yield server.port
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@_every_page
async def test_a_page_comes_back_when_the_daemon_was_stopped(browser: Browser, served: Served, name: str) -> None:
    shown = PAGES[name]
    async with serving_at(served, 0) as port:
        page = await browser.new_page()
        await sign_in(page, f"http://127.0.0.1:{port}", served.world.tokens["vic"])
        await page.goto(f"http://127.0.0.1:{port}{shown.path}")
        part = shown.part(page)
        before = await text_of(part)
    await shown.act(served.world)
    await page.wait_for_timeout(2_500)
    assert await text_of(part) == before
    async with serving_at(served, port):
        await expect(part).not_to_have_text(before, timeout=FOLLOWS_MS)
        await page.close()


async def test_what_is_said_of_times_does_not_grow_old(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "vic")
    await watched.page.clock.install()
    page = await watched.go("/rollouts")
    since = page.get_by_role("row", name=HALTED).locator("time")
    before = await text_of(since)
    served.world.plant.clock.advance(600)
    await page.wait_for_timeout(2_500)
    assert await text_of(since) == before
    await page.clock.fast_forward(61_000)
    await expect(since).not_to_have_text(before, timeout=FOLLOWS_MS)
    assert watched.faults == []
    await page.close()


async def test_who_is_signed_out_meanwhile_is_led_to_sign_in(browser: Browser, served: Served) -> None:
    context = await browser.new_context()
    page, other = await context.new_page(), await context.new_page()
    await sign_in(page, served.url, served.world.tokens["vic"])
    await page.goto(f"{served.url}/approvals")
    await other.goto(served.url)
    await other.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(f"{served.url}/login?next=/approvals", timeout=FOLLOWS_MS)
    await context.close()


async def until(page: Page, word: str) -> None:
    """Wait until something holds of the scripts of a page."""
    async with asyncio.timeout(FOLLOWS_MS / 1000):
        while not await page.evaluate(word):
            await page.wait_for_timeout(50)


async def test_a_page_that_hears_nothing_says_so(browser: Browser, served: Served) -> None:
    page = await browser.new_page()
    await page.clock.install()
    behind = page.locator("#behind")
    async with serving_at(served, 0) as port:
        await sign_in(page, f"http://127.0.0.1:{port}", served.world.tokens["vic"])
        await page.goto(f"http://127.0.0.1:{port}/rollouts/{RUNNING}")
        await until(page, "stream?.readyState === EventSource.OPEN")
        await page.clock.fast_forward(15_000)
        await expect(behind).to_be_hidden()
    await until(page, "stream?.readyState !== EventSource.OPEN")
    await page.clock.fast_forward(15_000)
    await expect(behind).to_contain_text("Nothing was heard from the daemon since ", timeout=FOLLOWS_MS)
    assert await faults_of(page) == []
    async with serving_at(served, port):
        await expect(behind).to_be_hidden(timeout=FOLLOWS_MS)
        await page.close()


async def test_a_page_that_stands_still_while_somebody_writes_says_so(browser: Browser, served: Served) -> None:
    page = await browser.new_page()
    await page.clock.install()
    await sign_in(page, served.url, served.world.tokens["ann"])
    await page.goto(f"{served.url}/devices/{DEVICE}")
    await page.get_by_role("group", name="Acts").get_by_role("button").click()
    await turn(served.world)
    await until(page, "behind")
    await page.clock.fast_forward(15_000)
    behind = page.locator("#behind")
    await expect(behind).to_contain_text("This page stands still since ", timeout=FOLLOWS_MS)
    await page.keyboard.press("Escape")
    await expect(behind).to_be_hidden(timeout=FOLLOWS_MS)
    await page.close()


_GONE = 'window.fetch = async () => new Response("gone", { status: 404 });'


async def test_what_is_gone_is_not_shown_as_if_it_were_there(browser: Browser, served: Served) -> None:
    page = await browser.new_page()
    await sign_in(page, served.url, served.world.tokens["vic"])
    await page.goto(f"{served.url}/devices/{DEVICE}")
    await page.evaluate(_GONE)
    async with page.expect_event("framenavigated", timeout=FOLLOWS_MS):  # loaded anew, to say what became of it
        await turn(served.world)
    await page.close()


_HELD = """
    const fetched = window.fetch;
    window.fetch = async (...what) => {
      await new Promise(done => { window.goOn = done; });
      window.fetch = fetched;
      return fetched(...what);
    };
"""
"""Holds back what a page asks for first by itself until `goOn` is called."""


async def test_who_begins_to_write_while_an_answer_is_on_its_way_is_not_disturbed(
    browser: Browser, served: Served
) -> None:
    watched = await watch(browser, served, "ann")
    await watched.page.add_init_script(_HELD)
    page = await watched.go(f"/devices/{DEVICE}")
    shown = PAGES["device"].part(page)
    before = await text_of(shown)
    await turn(served.world)
    await until(page, "window.goOn !== undefined")
    await page.get_by_role("group", name="Acts").get_by_role("button").click()
    await page.evaluate("""new Promise(done => {
      document.addEventListener("htmx:finally:request", done, { once: true });
      window.goOn();
    }).then(() => true)""")
    assert await text_of(shown) == before
    await page.keyboard.press("Escape")
    await expect(shown).not_to_have_text(before, timeout=FOLLOWS_MS)
    assert watched.faults == []
    await page.close()


async def test_who_writes_is_not_disturbed(browser: Browser, served: Served) -> None:
    watched = await watch(browser, served, "ann")
    page = await watched.go(f"/rollouts/{RUNNING}")
    await page.get_by_role("group", name="Acts").get_by_role("button", name="Skip stage").click()
    reason = page.get_by_role("dialog").get_by_label("Reason")
    await reason.fill("the lab saw")
    before = await text_of(healthy(page))
    await confirm(served.world)
    await page.wait_for_timeout(2_500)
    await expect(reason).to_have_value("the lab saw")
    assert await text_of(healthy(page)) == before
    assert watched.faults == []
    await page.keyboard.press("Escape")
    await expect(healthy(page)).not_to_have_text(before, timeout=FOLLOWS_MS)
    assert watched.faults == []
    await page.close()


async def test_what_was_written_stays_when_the_page_follows(browser: Browser, served: Served) -> None:
    await propose(served.world)
    watched = await watch(browser, served, "ben")
    page = await watched.go("/approvals")
    waiting = PAGES["approvals"].part(page)
    before = await text_of(waiting)
    field = page.get_by_placeholder("Why").last  # of the newest: who waits longest stands first
    label = await field.get_attribute("id")
    await field.fill("I saw the batch")
    await propose(served.world)
    await page.wait_for_timeout(2_500)
    assert await text_of(waiting) == before  # somebody writes
    await page.get_by_role("heading", name="Approvals", exact=True).click()
    await expect(waiting).not_to_have_text(before, timeout=FOLLOWS_MS)
    await expect(page.locator(f"#{label}")).to_have_value("I saw the batch")
    await expect(page.get_by_placeholder("Why").last).to_have_value("")
    assert watched.faults == []
    await page.close()


_MORE = """
    const more = '<select id="choice" aria-label="Choice"><option>one</option><option>two</option></select>'
      + '<details id="more"><summary>More</summary>of it</details>';
    const fetched = window.fetch;
    window.fetch = async (...asked) => {
      const answer = await fetched(...asked);
      const text = (await answer.text()).replace('<h2 id="waiting">', more + '<h2 id="waiting">');
      return new Response(text, { status: answer.status, headers: answer.headers });
    };
    addEventListener("DOMContentLoaded", () => {
      document.getElementById("waiting").insertAdjacentHTML("beforebegin", more);
    });
"""
"""Puts a choice and something to open into the page of approvals, also when it asks for itself again."""


async def test_what_was_chosen_or_opened_stays_when_the_page_follows(browser: Browser, served: Served) -> None:
    """No live page has a choice or something to open yet: they are put into this one."""
    watched = await watch(browser, served, "vic")
    await watched.page.add_init_script(_MORE)
    page = await watched.go("/approvals")
    waiting = PAGES["approvals"].part(page)
    before = await text_of(waiting)
    await page.get_by_text("More", exact=True).click()
    await page.get_by_label("Choice").select_option("two")
    await page.get_by_label("Choice").focus()
    await propose(served.world)
    await page.wait_for_timeout(2_500)
    assert await text_of(waiting) == before  # somebody chooses
    await page.get_by_role("heading", name="Approvals", exact=True).click()
    await expect(waiting).not_to_have_text(before, timeout=FOLLOWS_MS)
    await expect(page.get_by_label("Choice")).to_have_value("two")
    await expect(page.locator("#more")).to_have_attribute("open", "")
    assert watched.faults == []
    await page.close()
