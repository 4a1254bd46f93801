"""Kill the daemon with SIGKILL while an act is on its way to the API: repeated under its key, it is done exactly once.

`ACT_KILLS` is the number of kills (4 in CI, one for each act), `KILL_SEED` fixes the moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
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

KILLS = int(os.environ.get("ACT_KILLS", "4"))
SEED = int(os.environ.get("KILL_SEED", "1"))
EARLY, LATE = 0.0, 0.9
"""From when on the daemon is killed, in times of what an act took just before, and for one such time: by turns before
the commit, and about the commit and the answer."""
ANN, BEN = "ann", "ben"
ROLES = {ANN: (Role.OPERATOR, Role.ADMIN), BEN: (Role.APPROVER,)}
APPROVE = "approve"
ROUND = ("start", "pause", "halt", APPROVE)
"""Each round has a rollout of its own, in which each is possible after the one before."""


@dataclass(frozen=True)
class Act:
    """What is asked for.

    Attributes:
        word: what it is.
        who: asks for it.
        path: of the API.
        key: under which it is asked for.
        entry: what the audit log calls it, and the thing that it is done to.
    """

    word: str
    who: str
    path: str
    key: str
    entry: tuple[str, str]


@dataclass(frozen=True)
class Cut:
    """An act that was cut off.

    Attributes:
        act: the act.
        after: the last entry of the audit log before it.
        heard: the answer, None if none came.
    """

    act: Act
    after: int
    heard: httpx2.Response | None


@dataclass
class Caseload:
    """What is done to one deployment, kill after kill.

    Attributes:
        tokens: of the accounts.
        chance: chooses the moments.
        fates: how often an act had been done when it was cut off, and how often its answer had come.
    """

    tokens: dict[str, str]
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    fates: Counter[str] = field(default_factory=Counter)

    async def cut_off(self, running: Daemon, http: httpx2.AsyncClient, number: int) -> Cut:
        """Ask for the next act, and kill the daemon meanwhile."""
        act = await self._next(http, number)
        took_s = await self._try_out(http)
        entries = await self._entries(http)
        sent = asyncio.create_task(self._send(http, act))
        begin = LATE if (number + number // len(ROUND)) % 2 else EARLY
        await asyncio.sleep((begin + self.chance.random()) * took_s)  # the moment is what is tried
        running.process.kill()
        try:
            heard = await sent
        except httpx2.HTTPError:
            heard = None
        return Cut(act, entries[-1]["n"], heard)

    async def judge(self, http: httpx2.AsyncClient, cut: Cut) -> None:
        """Repeat an act that was cut off, and look what that did and said."""
        done = await self._done(http, cut)
        assert done in (0, 1)
        assert done == 1 or cut.heard is None, "what was answered was done"
        again = await self._send(http, cut.act)
        assert again.status_code == 200, again.text
        assert _is_repeated(again) is (done == 1), "it says whether it was done before"
        assert await self._done(http, cut) == 1, cut.act
        if cut.heard is not None:
            assert again.json() == cut.heard.json()
        third = await self._send(http, cut.act)
        assert (_is_repeated(third), third.json()) == (True, again.json())
        assert await self._done(http, cut) == 1, cut.act
        self.fates["done" if done else "not done"] += 1
        self.fates["answered"] += cut.heard is not None

    async def _next(self, http: httpx2.AsyncClient, number: int) -> Act:
        word, name = ROUND[number % len(ROUND)], f"r{number // len(ROUND)}"
        key = f"{self.chance.getrandbits(128):032x}"
        if word != APPROVE:
            return Act(word, ANN, f"/rollouts/{name}/{word}", key, ("rollout.moved", name))
        waits = await self._post(http, ANN, "/operators", {"name": name, "person": name, "roles": ["admin"]})
        proposal = waits.json()["proposal"]
        return Act(word, BEN, f"/approvals/{proposal}/approve", key, ("approval.vote", str(proposal)))

    async def _try_out(self, http: httpx2.AsyncClient) -> float:
        """Return how long an act takes here and now."""
        took_s = 0.0
        for word in ("quarantine", "release"):
            key, body = f"{self.chance.getrandbits(128):032x}", {"devices": ["d1"], "reason": "to try"}
            begun = time.perf_counter()
            answer = await self._post(http, ANN, f"/devices/{word}", body, key)
            took_s = time.perf_counter() - begun
            assert answer.json() == {"changed": 1}
        return took_s

    async def _send(self, http: httpx2.AsyncClient, act: Act) -> httpx2.Response:
        return await self._post(http, act.who, act.path, {"reason": "as agreed"}, act.key)

    async def _done(self, http: httpx2.AsyncClient, cut: Cut) -> int:
        """Return how often the audit log says that an act was done since."""
        wanted = (cut.act.who, *cut.act.entry)
        found = await self._entries(http, cut.after)
        return sum((item["actor"], item["action"], item["object"]) == wanted for item in found)

    async def _entries(self, http: httpx2.AsyncClient, after: int = 0) -> list[dict[str, Any]]:
        answer = await http.get(f"/api/v1/audit?limit=1000&after={after}", headers=self._headers(ANN))
        assert "link" not in answer.headers, "they do not fit into one page"
        entries: list[dict[str, Any]] = answer.json()
        return entries

    async def _post(
        self, http: httpx2.AsyncClient, who: str, path: str, body: object, key: str | None = None
    ) -> httpx2.Response:
        keyed = {} if key is None else {"Idempotency-Key": key}
        return await http.post(f"/api/v1{path}", json=body, headers=self._headers(who) | keyed)

    def _headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}


def _is_repeated(answer: httpx2.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


@pytest.mark.timeout(0 if KILLS > 20 else 420)
async def test_an_act_that_is_cut_off_and_repeated_under_its_key_is_done_once(tmp_path: Path) -> None:
    config = Deployment.made(tmp_path).write()
    load = Caseload(await _furnish(tmp_path))
    cut: Cut | None = None
    for number in range(KILLS + 1):
        async with daemon(config) as running, _client(await running.origin()) as http:
            if cut is not None:
                await load.judge(http, cut)
            if number == KILLS:
                assert (await running.stop())[0] == 0
            else:
                cut = await load.cut_off(running, http, number)
    print(f"{KILLS} kills: {dict(load.fates)}")


async def _furnish(folder: Path) -> dict[str, str]:
    """Put devices, rollouts and two accounts into the store; returns the tokens of these."""
    now = time.time()
    wish = Wish(Caller("root@local", "", SHARED, local=True))

    def work(tx: Tx) -> dict[str, str]:
        operations.enrol(tx, [NewDevice(f"d{at}", "m1", (), "1.0.0", 1) for at in range(6)], now)
        release = stock(tx, now=now)
        for number in range(-(-KILLS // len(ROUND))):
            operations.create_rollout(tx, make_plan((2, REST), name=f"r{number}", release=release), ANN, now)
        tokens = {}
        for name, roles in ROLES.items():
            made = operators.add(tx, NewOperator(name, name, roles, 30), wish, Rules(), now)
            assert isinstance(made, Issued)
            tokens[name] = made.text
        return tokens

    async with opened(folder) as store:
        return await store.transact(Lane.OPERATOR, work)


def _client(origin: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=origin, trust_env=False, timeout=20)
