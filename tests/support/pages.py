"""The pages on a real server, and a real browser that looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from orchestrator.web.server import HttpServer
from tests.support.factory import Settings, plant
from tests.support.world import World, make_world
from tests.web.site import Site, site_of

CHROMIUM = "/usr/bin/chromium"
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}


@dataclass
class Served:
    """A world with its pages.

    Attributes:
        url: where the pages are.
        world: what they show.
        site: the application.
    """

    url: str
    world: World
    site: Site


@asynccontextmanager
async def served_world(folder: Path) -> AsyncIterator[Served]:
    """Make the world and serve its pages on loopback."""
    async with plant(folder, Settings(batch=250, ahead=500)) as engine:
        world = await make_world(engine)
        async with site_of(engine, folder) as site, serving(site) as url:
            yield Served(url, world, site)


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[str]:
    """Serve an application on a free port of loopback."""
    server = HttpServer(site.app, "127.0.0.1", 0, 64)
    task = asyncio.create_task(server.run())
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Chromium without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def sign_in(page: Page, url: str, token: str) -> None:
    """Sign in as a person does."""
    await page.goto(f"{url}/login")
    await page.get_by_label("Operator token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"{url}/")
