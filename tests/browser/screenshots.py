"""Photographs of every page, light, dark and on a phone: `make screenshots`. For people to look at; kept nowhere."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.pages import DESKTOP, PHONE, chromium, served_world, sign_in
from tests.support.world import COMPLETE, DRAFT, HALTED, RUNNING

PAGES = {
    "fleet": "/",
    "rollouts": "/rollouts",
    "running": f"/rollouts/{RUNNING}",
    "halted": f"/rollouts/{HALTED}",
    "complete": f"/rollouts/{COMPLETE}",
    "draft": f"/rollouts/{DRAFT}",
    "devices": "/devices",
    "selected": "/devices?where=" + quote('site like "berlin-*" and rel < 30'),
    "fault": "/devices?where=" + quote('model = "gateway-3"'),
    "quarantined": "/devices?quarantined=yes",
    "left-out": "/devices/gateway-3-0000",
    "device": "/devices/camera-2-0007",
    "waiting": "/devices/gateway-3-0900",
    "artifacts": "/artifacts",
    "approvals": "/approvals",
    "audit": "/audit",
    "keys": "/keys",
    "accounts": "/accounts",
}
EVERYTHING = "adam"
"""An account that sees every page."""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": DESKTOP},
    "dark": {"color_scheme": "dark", "viewport": DESKTOP},
    "phone": {"color_scheme": "light", "viewport": PHONE, "device_scale_factor": 2},
}


async def take(folder: Path) -> None:
    """Write one picture of each page in each look."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        async with served_world(Path(place)) as served, chromium() as browser:
            for look, options in LOOKS.items():
                page = await browser.new_page(**options)
                await page.goto(f"{served.url}/login")
                await page.screenshot(path=folder / f"login-{look}.png")
                await sign_in(page, served.url, served.world.tokens[EVERYTHING])
                for name, path in PAGES.items():
                    await page.goto(served.url + path)
                    await page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
                await page.goto(f"{served.url}/rollouts/{RUNNING}")
                await page.get_by_role("group", name="Acts").get_by_role("button", name="Halt").click()
                await page.screenshot(path=folder / f"halt-{look}.png")
                await page.close()


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
