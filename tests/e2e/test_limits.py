"""What keeps a rollout from going on although nothing failed: an outage, users who were not asked, the ramp.

Rules:
- One scene for the module, and six hands; each test brings the next release to all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo.scene import Scene, Wishes, scene
from orchestrator.wire.report import OwnFacts
from tests.support.hand import Hand, hands

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "sim-a"
DEVICES = 6

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """The scene, and those in it."""

    scene: Scene
    hands: list[Hand]

    async def roll_out(self, name: str, rel: int, **more: object) -> None:
        """Start a rollout of a new release to all at once."""
        await self.scene.publish_release(name, f"{rel}.0.0", rel, bad=False)
        plan = {"name": name, "release": name, "stages": [{"devices": "rest", "max_failure_bound": "90%"}]}
        await self.scene.roll_out(plan | more)

    async def until(self, name: str, meets: Callable[[View], bool]) -> View:
        """Wait until a rollout is as it should be, and return it."""
        view: View = {}
        for _ in range(600):
            view = await self.scene.api("GET", f"/rollouts/{name}")
            if meets(view):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} is {view['phase']}: {view['standing']}, {view['states']}")

    async def codes(self, hand: Hand, name: str) -> list[str]:
        """Return what keeps a device from a rollout."""
        found = (await self.scene.api("GET", f"/devices/{hand.name}/explain"))["rollouts"]
        return [reason["code"] for item in found if item["rollout"] == name for reason in item["reasons"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    wishes = Wishes(devices=DEVICES, speed=20.0, config={"conductor": {"outage_floor": 3}})
    async with scene(tmp_path_factory.mktemp("limits"), wishes) as running:
        logins = [json.loads(line) for line in _credentials(running).read_text().splitlines()]
        passwords = {line["device"]: line["mqtt_password"] for line in logins}
        async with hands(running.broker, MODEL, passwords) as by_hand:
            while not all(device["online"] for device in await running.api("GET", "/devices")):
                await asyncio.sleep(0.05)
            yield Stage(running, by_hand)


def _credentials(running: Scene) -> Path:
    return running.directory / "credentials.jsonl"


def is_done(view: View) -> bool:
    return bool(view["phase"] == "done")


async def test_while_many_are_gone_at_once_nothing_is_offered(stage: Stage) -> None:
    gone = stage.hands[:4]
    for hand in gone:
        await hand.be(online=False)
    await stage.roll_out("winter", 2)
    view = await stage.until("winter", lambda view: view["standing"]["code"] == "outage")
    assert "4 devices outside any update lost their connection" in view["standing"]["text"]
    assert set(+Counter(view["states"])) <= {"pending"}
    for hand in gone:
        await hand.be(online=True)
    done = await stage.until("winter", is_done)
    assert done["states"]["confirmed"] == DEVICES


async def test_who_is_not_asked_or_says_later_is_left_in_peace(stage: Stage) -> None:
    willing, asked, shy = stage.hands[:4], stage.hands[4], stage.hands[5]
    for hand in willing:
        await hand.greet(OwnFacts(agreed=True))
    await asked.greet(OwnFacts(later=4_000_000_000))
    await stage.roll_out("polite", 3, consent={"mode": "ask"})
    await stage.until("polite", lambda view: +Counter(view["states"]) == Counter(confirmed=4, pending=2))
    assert await stage.codes(asked, "polite") == ["deferred"]
    assert await stage.codes(shy, "polite") == ["consent"]
    for hand in (asked, shy):
        await hand.greet(OwnFacts(agreed=True))
    await stage.until("polite", is_done)


async def test_a_ramp_lets_so_many_start_and_a_new_plan_the_others(stage: Stage) -> None:
    ramp = {"start": 2, "factor": 1, "cap": 2, "every": "10m"}
    await stage.roll_out("gentle", 4, ramp=ramp)
    view = await stage.until("gentle", lambda view: view["standing"]["code"] == "ramp")
    assert +Counter(view["states"]) <= Counter(confirmed=2, offered=2, accepted=2, installed=2, pending=DEVICES)
    assert view["states"]["pending"] >= DEVICES - 2
    assert "2 may start per minute" in await stage.scene.ota("rollout", "explain", "gentle")
    await stage.scene.api("POST", "/rollouts/gentle/abort", {"reason": "seen enough"})
