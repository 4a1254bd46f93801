"""Kill the daemon with SIGKILL at random moments of rollouts, and look what the broker and the database say.

`KILLS` is the number of kills (52 in CI; `make kill-test` does 2,000), `KILL_SEED` fixes the moments.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.scene import Scene, Wishes, scene
from orchestrator.errors import UnavailableError
from tests.support.observer import Seen, observer

KILLS = int(os.environ.get("KILLS", "52"))
SEED = int(os.environ.get("KILL_SEED", "1"))
DEVICES = 60
IN_FLIGHT = 12
BAD_STAGE_LIMIT = 30
ENDED = {"done", "halted", "inconclusive"}
CHANNELS = {"push": 0.7, "poll": 0.15, "both": 0.15}
LIMITS = {"lost_after_reboot": False}


def _plan(name: str) -> dict[str, Any]:
    stages: list[dict[str, Any]] = [
        {"devices": 15, "max_failure_bound": "25%"},
        {"devices": "rest", "max_failure_bound": "10%"},
    ]
    deadlines = {"accept": "60s", "download": "60s", "install": "60s", "confirm": "60s"}
    return {
        "name": name,
        "release": name,
        "seed": SEED,
        "in_flight": IN_FLIGHT,
        "stages": stages,
        "halt": LIMITS,
        "deadlines": deadlines,
    }


class Killer:
    """Kills and restarts the daemon until it has done so often enough."""

    def __init__(self, made: Scene, kills: int, seed: int) -> None:
        self.made = made
        self.left = kills
        self.random = random.Random(seed)

    async def until_ended(self, name: str) -> dict[str, Any]:
        """Follow a rollout to its end, killing on the way."""
        while True:
            view = await self._look(name)
            if view is not None and view["phase"] in ENDED and not view["in_flight"]:
                return view
            if self.left > 0:
                await asyncio.sleep(self.random.uniform(0.0, 0.5))
                await self._kill()
            else:
                await asyncio.sleep(0.2)

    async def _look(self, name: str) -> dict[str, Any] | None:
        try:
            view: dict[str, Any] = await self.made.api("GET", f"/rollouts/{name}")
        except UnavailableError:
            return None
        return view

    async def _kill(self) -> None:
        self.left -= 1
        await self.made.kill_daemon()
        if self.random.random() < 0.15 and self.left > 0:
            # Also while it starts: nothing may depend on a start that went through.
            await self.made.spawn_daemon()
            await asyncio.sleep(self.random.uniform(0.0, 1.5))
            self.left -= 1
            await self.made.kill_daemon()
        await self.made.start_daemon()


@pytest.mark.timeout(0 if KILLS > 100 else 420)
async def test_nothing_is_lost_reused_or_repeated_when_the_daemon_is_killed(tmp_path: Path) -> None:
    wishes = Wishes(
        devices=DEVICES,
        seed=SEED,
        bad_share=0.3,
        speed=15,
        guarded=False,
        behaviour={"channels": CHANNELS, "poll_s": 8},
        config={"conductor": {"link_grace": "500ms"}},
    )
    views: list[dict[str, Any]] = []
    async with scene(tmp_path, wishes) as made, observer(made.broker.host, made.broker.port) as seen:
        await made.start_fleet()
        killer = Killer(made, KILLS, SEED)
        while killer.left > 0 or len(views) < 2:
            number = len(views)
            bad, name = number % 2 == 1, f"r{number}"
            await made.publish_release(name, f"{number + 2}.0.0", number + 2, bad=bad)
            await made.roll_out(_plan(name))
            views.append(await killer.until_ended(name))
        explained = json.loads(await made.ota("rollout", "explain", "r0", "-o", "json"))
        assert explained["phase"] == "done"
        assert await made.stop_daemon() == 0
    _judge(seen, views, tmp_path)


def _judge(seen: Seen, views: list[dict[str, Any]], folder: Path) -> None:
    for view in views:
        number = int(view["name"].removeprefix("r"))
        assert view["phase"] == ("halted" if number % 2 else "done"), view["reason"]
        assert all(stage["opened"] <= stage["target"] for stage in view["stages"] if stage["target"] is not None)
        if number % 2:
            assert view["reached"] <= BAD_STAGE_LIMIT
    assert seen.faults == []
    assert {att: len(tokens) for att, tokens in seen.installs.items() if len(tokens) > 1} == {}
    assert 0 < seen.most_in_flight() <= IN_FLIGHT
    with closing(sqlite3.connect(folder / "state.db")) as database:
        stored = {
            (f"{u}.{a}", boot, n)
            for u, a, boot, n in database.execute("SELECT update_id, attempt, boot, n FROM reports")
        }
        assert len(stored) > DEVICES
        assert _acknowledged(folder / "journal.jsonl") - stored == set()
        assert seen.reports - stored == set()
        counted = "SELECT count(*), count(DISTINCT seq) FROM deliveries WHERE seq IS NOT NULL"
        sealed, distinct = database.execute(counted).fetchone()
        assert sealed == distinct
        twice = "SELECT device_id FROM updates GROUP BY device_id, rollout_id HAVING count(*) > 1"
        assert database.execute(twice).fetchall() == []


def _acknowledged(journal: Path) -> set[tuple[str, str, int]]:
    """Return the reports that devices saw acknowledged, by PUBACK or by HTTP 2xx; progress keeps no line."""
    events = (json.loads(line) for line in journal.read_text().splitlines())
    return {(e["att"], e["boot"], e["n"]) for e in events if e["event"] == "sent" and e["kind"] != "progress"}
