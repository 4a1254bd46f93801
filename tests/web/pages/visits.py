"""A browser without a screen: keeps its cookie, finds the forms of a page and sends them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx2

from tests.web.site import PLAN, TOKEN, Site, site

_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')


STAGED = PLAN | {"stages": [{"devices": 2, "soak": "1h"}, {"devices": "rest", "soak": "1h"}], "in_flight": 5}


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Site]:
    """A site where `spring` runs on the first two of six devices."""
    async with site(folder) as running:
        await running.release()
        await running.enrol("d1", "d2", "d3", "d4", "d5", "d6")
        await running.roll_out(**STAGED)
        yield running


@dataclass
class Visit:
    """One browser."""

    http: httpx2.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers=headers)

    async def sign_in(self, token: str = TOKEN) -> httpx2.Response:
        return await self.http.post("/login", data={"token": token, "next": "/rollouts"})

    async def form(self, page: str, action: str) -> dict[str, str]:
        """Return the hidden fields of the form of a page that goes to this place."""
        text = (await self.get(page)).text
        start = text.index(f'action="{action}"')
        found = _FIELD.findall(text[start : text.index("</form>", start)])
        return {name: unescape(value) for name, value in found}

    async def send(self, page: str, action: str, **fields: str) -> str:
        """Send a form as it stands on a page now; returns what the next page says became of it."""
        return await self.submit(action, await self.form(page, action) | fields)

    async def submit(self, action: str, fields: dict[str, str]) -> str:
        answer = await self.http.post(action, data=fields)
        assert answer.status_code == 303, answer.text
        return notice((await self.get(answer.headers["location"])).text)


def notice(text: str) -> str:
    """Return what a page says once, without markup."""
    found = re.search(r'<p class="notice \w+"[^>]*>(.*?)</p>', text, re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", "", found[1])) if found else ""


def visit(web: Site) -> Visit:
    """Open a browser on a site."""
    return Visit(httpx2.AsyncClient(transport=httpx2.ASGITransport(web.app), base_url="http://daemon"))


async def signed_in(web: Site, token: str = TOKEN) -> Visit:
    """Open a browser and sign in."""
    made = visit(web)
    assert (await made.sign_in(token)).status_code == 303
    return made
