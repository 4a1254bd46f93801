"""Windows in two time zones, requirements and facts, with real devices, a real broker and the wall clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo.scene import Scene, Wishes, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE, THERE = "UTC", "Asia/Tokyo"  # nine hours apart, all the year
DEVICES = [f"sim-{at:05d}" for at in range(4)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    behaviour = {"channels": {"push": 1, "poll": 1}, "download_s": [1, 2], "poll_s": 5, "battery_pct": [50, 50]}
    wishes = Wishes(devices=len(DEVICES), speed=20.0, behaviour=behaviour)
    async with scene(tmp_path_factory.mktemp("pace"), wishes) as running:
        await running.start_fleet()
        yield running


def hours_around(now: datetime) -> str:
    """Return a window that is open now, and will be for another hour."""
    return f"{(now.hour - 1) % 24:02}:00-{(now.hour + 2) % 24:02}:00"


async def place(stage: Scene, zones: dict[str, str]) -> None:
    changes = [{"id": name, "time_zone": zone} for name, zone in zones.items()]
    await stage.api("POST", "/devices/facts", {"devices": changes})


async def until(stage: Scene, name: str, wanted: Counter[str]) -> None:
    states: Counter[str] = Counter()
    for _ in range(600):
        states = +Counter((await stage.api("GET", f"/rollouts/{name}"))["states"])
        if states == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} stands at {states}")


async def why(stage: Scene, device_id: str) -> list[dict[str, Any]]:
    (found,) = (await stage.api("GET", f"/devices/{device_id}/explain"))["rollouts"]
    reasons: list[dict[str, Any]] = found["reasons"]
    return reasons


async def test_devices_update_within_the_hours_of_their_own_place(stage: Scene) -> None:
    await stage.publish_release("fw-2", "2.0.0", 2, bad=False)
    at_home, abroad = DEVICES[:2], DEVICES[2:]
    await place(stage, dict.fromkeys(at_home, HERE) | dict.fromkeys(abroad, THERE))
    window = {"open": [hours_around(datetime.now(UTC))]}
    plan = {"name": "night", "release": "fw-2", "stages": [{"devices": "rest"}], "window": window}
    await stage.roll_out(plan | {"require": {"battery": "50%", "links": ["wifi"]}})
    await until(stage, "night", Counter(confirmed=2, pending=2))
    for device_id in at_home:
        assert (await stage.api("GET", f"/devices/{device_id}"))["version"] == "2.0.0"
    for device_id in abroad:
        (reason,) = await why(stage, device_id)
        assert reason["code"] == "window" and THERE in reason["text"]
        assert reason["may_change_at"] > datetime.now(UTC).timestamp()
    standing = await stage.api("GET", "/rollouts/night/explain")
    assert (standing["code"], standing["wake_at"]) == ("held", reason["may_change_at"])
    await place(stage, dict.fromkeys(abroad, HERE))
    await until(stage, "night", Counter(confirmed=4))
    assert (await stage.wait_for("night", {"done", "inconclusive"}, timeout_s=30))["states"]["confirmed"] == 4
