"""Every page with 100,000 devices: small, and there within a second."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Page

from orchestrator.core.rollout import Command
from orchestrator.core.targeting.facts import Change
from orchestrator.engine.rollouts import operations, quarantine
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.targeting import facts
from orchestrator.ports import Lane
from orchestrator.wire.report import Hello, State
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, Settings, plant, stock
from tests.support.pages import chromium, serving, sign_in
from tests.web.site import TOKEN, site_of

DEVICES = 100_000
MAX_PAGE_BYTES = 200_000
MAX_INTERACTIVE_MS = 1_000
LOADS, MOST_LOADS = 3, 15
"""Loads of a page: more than the first few where something else had the machine meanwhile, as tests beside this one."""
PIECE = 5_000
PAGES = {
    "fleet": "/",
    "rollouts": "/rollouts",
    "rollout": "/rollouts/spring",
    "devices": "/devices",
    "the last devices": "/devices?after=d099960",
    "a selector that means many": "/devices?where=" + quote('site like "berlin-*"'),
    "a selector that means none": "/devices?where=" + quote('id like "nobody-*"'),
    "quarantined": "/devices?quarantined=yes",
    "device": "/devices/d050000",
    "artifacts": "/artifacts",
    "approvals": "/approvals",
    "audit": "/audit",
    "audit, filtered": "/audit?action=nothing",
    "keys": "/keys",
    "accounts": "/accounts",
}
_LOOK = """() => {
  const page = performance.getEntriesByType("navigation")[0];
  const parts = performance.getEntriesByType("resource").filter((it) => it.initiatorType !== "fetch");
  const size = [page, ...parts].reduce((sum, it) => sum + it.decodedBodySize, 0);
  return [size, page.responseEnd, page.domInteractive];
}"""


async def fill(it: Plant) -> None:
    """Register the devices, say something of each, and run a rollout over all of them."""
    for start in range(0, DEVICES, PIECE):
        some = [NewDevice(f"d{at:06}", f"m{at % 5}", (), "1.0.0", 1) for at in range(start, start + PIECE)]
        await it.store.transact(Lane.BULK, lambda tx, some=some: operations.enrol(tx, some, it.clock()))  # type: ignore[misc]
        names = [item.id for item in some]
        await it.write(lambda tx, n=names: facts.change(tx, _sites(n), it.clock(), actor="ann"))
        hellos = [Hello(v=1, dev=item.id, model=item.model, ver="1.0.0", rel=1) for item in some]
        await it.record(hellos=hellos)
        states = [State(v=1, dev=name, online=at % 9 > 0) for at, name in enumerate(names)]
        await it.store.transact(Lane.REPORTS, lambda tx, s=states: tx.mark_online(s, it.clock()))  # type: ignore[misc]
    await it.write(lambda tx: quarantine.enter(tx, ["d000500", "d090000"], "smoke", it.clock(), actor="ann"))
    release = await it.write(lambda tx: stock(tx, hardware=("m0", "m1", "m2"), now=it.clock()))
    plan = make_plan((200, REST), name="spring", release=release, in_flight=1_000)
    rollout = await it.create(plan)
    await it.command(rollout, Command.START, "field test passed")
    it.clock.advance(it.settings.grace_s)
    await it.conductor.advance(rollout.id)
    await it.send()


def _sites(names: list[str]) -> dict[str, Change]:
    return {name: Change(site=f"{('berlin', 'lyon')[at % 2]}-{at % 40}") for at, name in enumerate(names)}


@pytest.mark.timeout(420)
async def test_each_page_is_small_and_there_within_a_second(tmp_path: Path) -> None:
    async with plant(tmp_path, Settings(batch=1_000, ahead=2_000)) as it:
        await fill(it)
        async with site_of(it, tmp_path) as site, serving(site) as url, chromium() as browser:
            page = await browser.new_page()
            await sign_in(page, url, TOKEN)
            found = {name: await _measure(page, url + path) for name, path in PAGES.items()}
    for name, (size, heard, interactive) in found.items():
        print(f"{name:30} {size / 1000:7.1f} kB  answered {heard:6.0f} ms  interactive {interactive:6.0f} ms")
    assert {name: size for name, (size, _, _) in found.items() if size >= MAX_PAGE_BYTES} == {}
    assert {name: at for name, (_, _, at) in found.items() if at >= MAX_INTERACTIVE_MS} == {}


async def _measure(page: Page, url: str) -> tuple[int, float, float]:
    """Return what a page weighs with everything that it loads, and the best times of some loads, in ms."""
    found: list[tuple[int, float, float]] = []
    while len(found) < LOADS or (min(at for _, _, at in found) >= MAX_INTERACTIVE_MS and len(found) < MOST_LOADS):
        await page.goto(url)
        await page.wait_for_load_state("load")
        found.append(await page.evaluate(_LOOK))
    size, heard, interactive = min(found, key=lambda seen: float(seen[2]))
    return size, heard, interactive
