"""What devices do not say in so many words: sick ones that call themselves healthy, and silent ways back.

Rules:
- One scene for the module. Simulated devices measure themselves, hands say what the table in docs/pace.md tells apart.
- The tests stand by themselves, but simulated devices keep what an earlier test brought them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo import bucket
from orchestrator.demo.scene import BUCKET, MODEL, Scene, Wishes, scene
from orchestrator.sim.image import make_image
from orchestrator.wire.report import Kind
from tests.support.hand import Hand, Word, hands, healthy

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIMULATED = [f"sim-{at:05d}" for at in range(8)]
BY_HAND = [f"sim-{at:05d}" for at in range(8, 13)]
HAND = "hand-a"
HEALTH = [{"metric": "temperature", "must_be": "below 80", "missing": "fail"}]

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """The scene and the hands."""

    scene: Scene
    hands: list[Hand]

    async def until(self, name: str, meets: Callable[[View], bool]) -> View:
        """Wait until a rollout is as it should be, and return it."""
        view: View = {}
        for _ in range(600):
            view = await self.scene.api("GET", f"/rollouts/{name}")
            if meets(view):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} is {view['phase']}: {view['standing']}, {view['states']}")

    async def until_states(self, name: str, **wanted: int) -> View:
        return await self.until(name, lambda view: +Counter(view["states"]) == Counter(wanted))

    async def explained(self, device: str, rollout: str) -> View:
        """Return what is explained of a device in a rollout."""
        found = (await self.scene.api("GET", f"/devices/{device}/explain"))["rollouts"]
        (view,) = (item for item in found if item["rollout"] == rollout)
        return dict(view)

    async def versions(self) -> Counter[str]:
        devices = await self.scene.api("GET", "/devices")
        return Counter(item["version"] for item in devices if item["id"] in SIMULATED)

    async def release(self, name: str, rel: int, model: str, *, bad: bool = False) -> None:
        """Sign, upload and import an image, and make a release of it."""
        image = self.scene.directory / f"{name}.bin"
        image.write_bytes(make_image(f"{rel}.0.0", rel, 8192, bad=bad, seed=len(model)))
        await self.scene.ota(
            *("artifact", "sign", image, "--key", self.scene.directory / "keys" / "artifact.pem", "--name", "metrics"),
            *("--version", f"{rel}.0.0", "--rel", str(rel), "--hw", model),
        )
        for path in (image, Path(f"{image}.statement")):
            await bucket.put(self.scene.endpoint, BUCKET, path.name, path.read_bytes())
        imported = await self.scene.api("POST", "/artifacts", {"uri": f"s3://{BUCKET}/{image.name}"})
        await self.scene.api("POST", "/releases", {"name": name, "artifacts": [imported["sha256"]]})

    async def roll_out(self, name: str, **plan: object) -> None:
        await self.scene.api("POST", "/rollouts", {"name": name, **plan})
        await self.scene.api("POST", f"/rollouts/{name}/start", {"reason": ""})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    behaviour = {
        "channels": {"push": 3, "poll": 1},
        "download_s": [1, 2],
        "poll_s": 5,
        "metrics": {"temperature": [55, 5], "free_kib": [80, 20]},
        "bad_metrics": {"temperature": 40},
    }
    wishes = Wishes(devices=len(SIMULATED) + len(BY_HAND), bad_share=0.0, speed=20.0, behaviour=behaviour)
    async with (
        scene(tmp_path_factory.mktemp("metrics"), wishes) as running,
        hands(running.broker, HAND, _hand_logins(running)) as by_hand,
    ):
        await running.start_fleet()
        yield Stage(running, by_hand)


def _hand_logins(running: Scene) -> dict[str, str]:
    """Take the logins of the hands out of the file that the simulated fleet reads."""
    path = running.directory / "credentials.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["device"] in SIMULATED))
    return {line["device"]: line["mqtt_password"] for line in lines if line["device"] in BY_HAND}


async def test_a_release_that_is_well_by_its_measure_completes(stage: Stage) -> None:
    await stage.release("fw-2", 2, MODEL)
    await stage.roll_out("well", release="fw-2", stages=[{"devices": 3}, {"devices": "rest"}], health=HEALTH)
    done = await stage.until("well", lambda view: view["phase"] == "done")
    assert (+Counter(done["states"]), await stage.versions()) == (Counter(confirmed=8), Counter({"2.0.0": 8}))
    said = json.dumps(await stage.explained(SIMULATED[0], "well"))
    assert re.search(r"temperature=(5\d|60)", said) and "free_kib=" in said


async def test_devices_that_call_themselves_healthy_halt_a_release_that_makes_them_hot(stage: Stage) -> None:
    await stage.release("fw-3", 3, MODEL, bad=True)  # it crashes on no device of this fleet
    stages = [{"devices": 4}, {"devices": "rest"}]
    await stage.roll_out("hot", release="fw-3", stages=stages, health=HEALTH)
    view = await stage.until("hot", lambda view: view["phase"] == "halted")
    assert view["reason"]["code"] == "evidence"
    assert view["evidence"][0]["k"] == view["states"]["failed"] >= 2
    assert view["states"].get("confirmed", 0) == 0 and view["stage"] == 0
    assert (await stage.versions())["2.0.0"] >= 4  # those of the second stage
    assert re.search(
        r"failed  \d times: unhealthy  temperature must be below 80\n",
        await stage.scene.ota("rollout", "explain", "hot"),
    )
    sick = [each for each in SIMULATED if (await stage.explained(each, "hot"))["state"] == "failed"]
    assert len(sick) >= 2
    text = await stage.scene.ota("device", "explain", sick[0])
    assert "unhealthy" in text and "temperature=9" in text
    journal = [json.loads(line) for line in (stage.scene.directory / "journal.jsonl").read_text().splitlines()]
    assert {entry["event"] for entry in journal} & {"crashed", "rolled_back", "failed"} == set()


INSTALLS = (Word(Kind.ACCEPTED), Word(Kind.DOWNLOADED), Word(Kind.INSTALLED))


async def test_a_device_that_goes_back_without_a_word_is_found_out(stage: Stage) -> None:
    back_later, back_silently, rejected, drifted, honest = stage.hands
    for each in (back_silently, rejected, drifted):
        each.answer = lambda _: INSTALLS
    back_later.answer = honest.answer = healthy
    await stage.release("hand-2", 2, HAND)
    await stage.roll_out(
        "silent",
        release="hand-2",
        stages=[{"devices": "rest", "approve": True, "max_failure_bound": "99%"}],
        target={"models": [HAND]},
        halt={"tolerated": "39%", "lost_after_reboot": False},
        deadlines={"confirm": "5s"},
    )
    await stage.until_states("silent", confirmed=2, installed=3)
    assert (await stage.scene.api("GET", "/rollouts/silent"))["evidence"][0]["k"] == 0

    await drifted.come_back(7, boots=1)  # a version that nobody offered
    await back_silently.come_back(1, boots=2)
    await rejected.come_back(1, boots=1)
    first = await stage.until("silent", lambda view: view["states"].get("failed"))
    assert "rolled_back" not in first["states"]  # what no report could change counts at once, the rest at the deadline
    view = await stage.until_states("silent", confirmed=2, failed=2, rolled_back=1)
    assert [(item["k"], item["n"]) for item in view["evidence"]] == [(3, 5)]
    await back_later.come_back(1, boots=2)  # it was healthy, it said
    view = await stage.until_states("silent", confirmed=1, failed=3, rolled_back=1)
    assert [(item["k"], item["n"]) for item in view["evidence"]] == [(4, 5)]

    found = {each.name: await stage.explained(each.name, "silent") for each in stage.hands}
    assert {name: item["state"] for name, item in found.items()} == {
        back_later.name: "failed",
        back_silently.name: "rolled_back",
        rejected.name: "failed",
        drifted.name: "failed",
        honest.name: "confirmed",
    }
    codes = {back_later: "drifted", back_silently: "booted_twice", rejected: "never_ran", drifted: "third_release"}
    for each, code in codes.items():
        assert code in found[each.name]["because"]
    assert "booted_twice" in await stage.scene.ota("device", "explain", back_silently.name)
    failures = (await stage.scene.api("GET", "/rollouts/silent/explain"))["failures"]
    assert Counter(item["code"] for item in failures) == Counter(codes.values())
    assert "healthy" in found[honest.name]["because"]
