"""A client of hawkBit's API as the recordings of real ones show it, driven word by word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx2

from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.targeting import unsigned
from orchestrator.ports import Lane
from tests.web.site import Site

SWUPDATE, RAUC = "libcurl-agent/1.0", "rauc-hawkbit-c-agent/1.4"
PUBLIC = "http://127.0.0.1:8080"
IMAGE = bytes(range(256)) * 20
VERSION = "2.0.0"

View = dict[str, Any]


@dataclass
class Client:
    """A device that speaks DDI.

    Attributes:
        web: the application.
        device: its identifier.
        agent: what it calls itself.
        tenant: as it spells it.
        token: with which it logs in, None for its own.
    """

    web: Site
    device: str = "d1"
    agent: str = SWUPDATE
    tenant: str = "DEFAULT"
    token: str | None = None

    async def call(self, method: str, path: str = "", **more: Any) -> httpx2.Response:
        """Send a request below the place of the device."""
        token = self.token or f"TargetToken {self.web.tokens[self.device]}"
        headers = {"Authorization": token, "User-Agent": self.agent, "Accept": "application/json"}
        place = f"/{self.tenant}/controller/v1/{self.device}{path}"
        return await self.web.http.request(method, place, headers=headers | more.pop("headers", {}), **more)

    async def follow(self, href: str, method: str = "GET", **more: Any) -> httpx2.Response:
        """Follow a link that the server made."""
        place = f"{PUBLIC}/{self.tenant}/controller/v1/{self.device}"
        assert href.startswith(place)
        return await self.call(method, href.removeprefix(place), **more)

    async def poll(self) -> View:
        """Return the links of a poll."""
        answer = await self.call("GET")
        assert answer.status_code == 200, answer.text
        assert answer.json()["config"]["polling"]["sleep"]
        return {name: link["href"] for name, link in answer.json().get("_links", {}).items()}

    async def deployment(self) -> View:
        """Return the deployment that is offered."""
        answer = await self.follow((await self.poll())["deploymentBase"])
        assert answer.status_code == 200, answer.text
        found: View = answer.json()
        return found

    async def artifact(self) -> str:
        """Return the link to the artifact that is offered."""
        [chunk] = (await self.deployment())["deployment"]["chunks"]
        [artifact] = chunk["artifacts"]
        href: str = artifact["_links"]["download-http"]["href"]
        return href

    async def say(
        self, execution: str, finished: str = "none", *details: str, number: int = 1, to: str = "deploymentBase"
    ) -> int:
        """Post a feedback as SWUpdate does, and return the status."""
        body = {
            "id": number,
            "time": "20261121T181000",
            "status": {
                "result": {"progress": {"cnt": 0, "of": 1}, "finished": finished},
                "execution": execution,
                "details": list(details) or [""],
            },
        }
        answer = await self.call("POST", f"/{to}/{number}/feedback", content=json.dumps(body))
        assert not answer.content or answer.status_code >= 400
        return answer.status_code

    async def attributes(self, **data: str) -> int:
        """Put attributes as SWUpdate does, and return the status."""
        body = {"id": "", "time": "20261121T181000", "status": {"execution": "closed"}, "data": data}
        return (await self.call("PUT", "/configData", content=json.dumps(body))).status_code


async def allow(web: Site, reason: str = "a test") -> None:
    """Let devices have images that they cannot verify."""
    await web.plant.store.transact(Lane.OPERATOR, lambda tx: unsigned.settle(tx, reason, 0.0))


async def enrol(web: Site, *devices: str, **said: Any) -> None:
    """Enrol devices of this dialect."""
    body = [{"id": each, "model": "m1", "version": "1.0.0", "rel": 1, "dialect": "ddi"} | said for each in devices]
    answer = await web.ops("POST", "/devices", {"devices": body})
    assert answer.status_code == 201, answer.text
    web.tokens |= answer.json()["tokens"]


async def offered(web: Site, *devices: str, **plan: Any) -> Client:
    """Offer release 2 to devices of this dialect, sign the triggers, and return a client of the first one."""
    await allow(web)
    await web.release(IMAGE)
    await enrol(web, *(devices or ("d1",)))
    await web.roll_out(**plan)
    await web.plant.seal()
    return Client(web, devices[0] if devices else "d1")


async def state(web: Site, device: str = "d1") -> tuple[UpdateState, str]:
    """Return where the update of a device stands, and its code."""
    [update] = await web.plant.store.read(lambda tx: tx.updates_of([device]))
    return update.state, update.code


async def recall(web: Site) -> None:
    """Halt the rollout, which recalls who has begun, and sign that."""
    rollout = await web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    await web.plant.command(rollout, Command.HALT)
    await web.plant.seal()
