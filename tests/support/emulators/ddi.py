"""SWUpdate's suricatta, as far as it speaks to a server: it polls, fetches, installs, and closes after the reboot.

Rules:
- One poll is what one wake-up of the real client is; a device that has installed has rebooted when the next one begins.
- What was said and not answered is said again, with the same words. What the server says is believed.
- Nothing is shared with the server but the client of HTTP.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx2

AGENT = "libcurl-agent/1.0"
INSTALLED = "All Chunks Installed."

View = dict[str, Any]


@dataclass
class Ddi:
    """One device.

    Attributes:
        server: origin of the server.
        name: its identifier.
        token: with which it logs in.
        http: the client of all devices.
        bad: versions that do not survive their first boot on it.
        runs: hash of what it runs, in hex; "" for what it was born with.
        installs: versions that it installed, in order.
        stopped: numbers of the actions that it was told to stop, in order.
    """

    server: str
    name: str
    token: str
    http: httpx2.AsyncClient
    bad: frozenset[str] = frozenset()
    runs: str = ""
    installs: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    _booted: dict[str, str] = field(default_factory=dict)
    _before: str = ""

    async def poll(self) -> None:
        """Ask once, and do what the answer says.

        Raises:
            httpx2.HTTPError: the server is not there, or was not when it was needed.
        """
        base = await self._get(f"{self.server}/DEFAULT/controller/v1/{self.name}")
        assert base["config"]["polling"]["sleep"] > "00:00:00"
        links = {name: link["href"] for name, link in base.get("_links", {}).items()}
        if "cancelAction" in links:
            await self._cancel(links["cancelAction"])
        elif "deploymentBase" in links:
            await self._deploy(links["deploymentBase"])

    async def _deploy(self, href: str) -> None:
        document = await self._get(href)
        place = f"{href.partition('?')[0]}/feedback"
        number, [chunk] = document["id"], document["deployment"]["chunks"]
        version = chunk["version"]
        if number in self._booted:
            await self._close(place, number)
            return
        [artifact] = chunk["artifacts"]
        await self._say(place, number, "proceeding")
        answer = await self.http.get(artifact["_links"]["download-http"]["href"], headers=self._headers)
        answer.raise_for_status()
        assert len(answer.content) == artifact["size"]
        assert hashlib.sha256(answer.content).hexdigest() == artifact["hashes"]["sha256"]
        self._before, self.runs = self.runs, artifact["hashes"]["sha256"]
        self._booted[number] = version
        self.installs.append(version)
        await self._say(place, number, "proceeding", INSTALLED)

    async def _close(self, place: str, number: str) -> None:
        """Say how the first boot went; who was cut off before says first that it has installed."""
        crashed = self._booted[number] in self.bad
        if crashed:
            self.runs = self._before
        await self._say(place, number, "proceeding", INSTALLED)
        await self._say(place, number, "closed", finished="failure" if crashed else "success")

    async def _cancel(self, href: str) -> None:
        number = (await self._get(href))["id"]
        self.stopped.append(number)
        await self._say(f"{href}/feedback", number, "closed", finished="success")

    async def _say(self, place: str, number: str, execution: str, *details: str, finished: str = "none") -> None:
        status = {"result": {"finished": finished}, "execution": execution, "details": [*details]}
        body = {"id": number, "time": "20261121T181000", "status": status}
        answer = await self.http.post(place, json=body, headers=self._headers)
        answer.raise_for_status()

    async def _get(self, url: str) -> View:
        answer = await self.http.get(url, headers=self._headers)
        answer.raise_for_status()
        found: View = answer.json()
        return found

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"TargetToken {self.token}", "User-Agent": AGENT, "Accept": "application/hal+json"}
