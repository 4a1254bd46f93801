"""Kill the daemon with SIGKILL while a form is on its way: the act is done once or not at all, and the page says which.

`FORM_KILLS` is the number of kills (4 in CI), `KILL_SEED` fixes the moments.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.core.trust.roles import SHARED, Caller, Role
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.trust import operators
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.operators import Issued, NewOperator
from orchestrator.ports import Lane, Tx
from tests.support.builders import REST, make_plan
from tests.support.factory import stock
from tests.support.scene import Daemon, Deployment, daemon
from tests.support.store import opened
from tests.web.pages.visits import Visit, notice

KILLS = int(os.environ.get("FORM_KILLS", "4"))
SEED = int(os.environ.get("KILL_SEED", "1"))
LATEST_S = 0.06
WHO = "ann"


@dataclass(frozen=True)
class Press:
    """A button that is pressed.

    Attributes:
        page: where it stands.
        action: where its form goes.
        entry: what the audit log calls what it does.
        stops: whether it is carried out whenever it is sent.
        fields: what is written in its form.
    """

    page: str
    action: str
    entry: str
    stops: bool = False
    fields: dict[str, str] = field(default_factory=lambda: {"reason": "as agreed"})


_ACCOUNT = {"name": "eve", "person": "eve", "role_viewer": "yes", "days": "3", "reason": "she joins"}
PRESSES = (
    Press("/rollouts/spring", "/rollouts/spring/start", "rollout.moved"),
    Press("/devices/d1", "/devices/d1/quarantine", "devices.quarantined"),
    Press("/rollouts/spring", "/rollouts/spring/pause", "rollout.moved", stops=True),
    Press("/accounts", "/accounts/add", "operator.added", fields=_ACCOUNT),
    Press("/rollouts/spring", "/rollouts/spring/resume", "rollout.moved"),
    Press("/devices/d1", "/devices/d1/release", "devices.released"),
    Press("/accounts", "/accounts/eve/remove", "operator.removed"),
    Press("/rollouts/spring", "/rollouts/spring/pause", "rollout.moved", stops=True),
)
"""Each leaves the place where the next one is possible; from the second round on the first is a resume."""
RESUME = Press("/rollouts/spring", "/rollouts/spring/resume", "rollout.moved")


@pytest.mark.timeout(0 if KILLS > 20 else 420)
async def test_a_button_that_is_pressed_while_the_daemon_dies_acts_once_or_not_at_all(tmp_path: Path) -> None:
    config = Deployment.made(tmp_path).write()
    async with daemon(config) as first:
        await first.origin()
        await first.stop()
    token = await _furnish(tmp_path)
    chance = random.Random(SEED)
    fates = {True: 0, False: 0}
    presses = [RESUME if at >= len(PRESSES) and item is PRESSES[0] else item for at, item in enumerate(_many())]
    for press in presses:
        fates[await _once_or_never(config, token, press, chance)] += 1
    print(f"{KILLS} kills: {fates[True]} acts were done, {fates[False]} were not")


def _many() -> list[Press]:
    return list(islice(cycle(PRESSES), KILLS))


async def _furnish(folder: Path) -> str:
    """Put devices, a rollout and an account into the store; returns the account's token."""
    now = time.time()
    wish = Wish(Caller("root@local", "", SHARED, local=True))

    def work(tx: Tx) -> str:
        operations.enrol(tx, [NewDevice(f"d{at}", "m1", (), "1.0.0", 1) for at in range(6)], now)
        plan = make_plan((2, REST), name="spring", release=stock(tx, now=now))
        operations.create_rollout(tx, plan, WHO, now)
        new = NewOperator(WHO, WHO, (Role.OPERATOR, Role.ADMIN), 30)
        made = operators.add(tx, new, wish, Rules(), now)
        assert isinstance(made, Issued)
        return made.text

    async with opened(folder) as store:
        return await store.transact(Lane.OPERATOR, work)


async def _once_or_never(config: Path, token: str, press: Press, chance: random.Random) -> bool:
    """Press a button, kill the daemon, start it again and look; then send the same form once more."""
    async with daemon(config) as running, _client(await running.origin()) as http:
        browser = Visit(http)
        await browser.sign_in(token)
        fields = await browser.form(press.page, press.action) | press.fields
        before = len(await _entries(browser))
        sent = asyncio.create_task(_send(browser, press.action, fields))
        await asyncio.sleep(chance.uniform(0.0, LATEST_S))
        _kill(running)
        heard = await sent
    async with daemon(config) as running, _client(await running.origin()) as http:
        browser = Visit(http)
        answer = await browser.http.post(press.action, data=fields)  # as a browser that loads again sends it
        assert answer.headers["location"].startswith("/login?next=")
        login = {"token": token, "next": press.page, "tried": fields["key"]}
        assert (await browser.http.post("/login", data=login)).headers["location"] == press.page
        told = notice((await browser.get(press.page)).text)
        done = await _done(browser, press, before)
        assert done in (0, 1)
        assert ("was carried out, once, at " in told) is (done == 1), (press, told)
        assert ("was not carried out" in told) is (done == 0), (press, told)
        assert done == 1 or not heard, "what was answered was done"
        mine = (await browser.form(press.page, "/logout"))["csrf"]
        again = await browser.submit(press.action, fields | {"csrf": mine})
        assert await _done(browser, press, before) == 1, again
        if done and not press.stops:
            assert "was done already, at " in again, (press, again)
        assert (await running.stop())[0] == 0
    return done == 1


def _client(origin: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=origin, trust_env=False, timeout=20)


def _kill(running: Daemon) -> None:
    running.process.kill()


async def _send(browser: Visit, action: str, fields: dict[str, str]) -> bool:
    """Send a form; says whether an answer came."""
    try:
        return (await browser.http.post(action, data=fields)).status_code == 303
    except httpx2.HTTPError:
        return False


async def _entries(browser: Visit) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await browser.get("/audit/export")).text.splitlines()]


async def _done(browser: Visit, press: Press, before: int) -> int:
    """Return how often the audit log says that it was done since."""
    found = (await _entries(browser))[before:]
    return sum(item["actor"] == WHO and item["action"] == press.entry for item in found)
