"""One world and one Chromium for all tests that look at pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.support.pages import Served, chromium, served_world, sign_in


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder: Path = tmp_path_factory.mktemp("world")
    async with served_world(folder) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@dataclass
class Watched:
    """A page, and everything it complained about.

    Attributes:
        page: the page.
        url: where the pages are.
        faults: errors of the console, violations of the policy, and requests that failed.
    """

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    async def go(self, path: str) -> Page:
        await self.page.goto(self.url + path)
        return self.page


async def watch(browser: Browser, served: Served, who: str, **options: Any) -> Watched:
    """Open a page as this account; what goes wrong in it is kept."""
    page = await browser.new_page(**options)
    found = Watched(page, served.url)
    page.on("console", lambda said: found.faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.faults.append(str(error)))
    page.on("request", lambda it: None if it.url.startswith(served.url) else found.faults.append(it.url))
    await sign_in(page, served.url, served.world.tokens[who])
    return found
