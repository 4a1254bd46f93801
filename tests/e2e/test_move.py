"""A fleet moves to another broker and another HTTP address, with real brokers, a bridge, a daemon and devices.

Rules:
- One scene for the module; the tests build on each other in their order.
- Devices are moved three times: to a broker that no daemon stands behind, to one that a bridge joins to the daemon's,
  and then the firmware follows them there.
- Where a device is connected, the log of that broker says.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo import bucket
from orchestrator.demo.broker import SHIPPED, BrokerInfo, find_mosquitto, free_port, mosquitto, render
from orchestrator.demo.scene import BUCKET, DEPLOYMENT, MODEL, Scene, Wishes, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICES = [f"sim-{at:05d}" for at in range(20)]
BRIDGE_PASSWORD = "carries-it-all"
_CAME = re.compile(r"New client connected from \S+ as (sim-\d{5}) ")
_WENT = re.compile(r"Client (sim-\d{5}) (?:disconnected|closed|has exceeded|already connected)")


@dataclass(frozen=True, slots=True)
class Stage:
    """The scene, and the brokers that devices are moved to."""

    scene: Scene
    bridged: BrokerInfo
    lonely: BrokerInfo

    def connected(self, name: str) -> set[str]:
        """Return the devices that are connected to a broker now."""
        present: set[str] = set()
        for line in (self.scene.directory / name / "mosquitto.log").read_text().splitlines():
            if came := _CAME.search(line):
                present.add(came[1])
            elif went := _WENT.search(line):
                present.discard(went[1])
        return present

    async def release(self, name: str, rel: int, mqtt: BrokerInfo, http: tuple[str, ...]) -> None:
        """Make a document of endpoints, sign it, import it, and make a release of it, as an operator does."""
        scene, document = self.scene, self.scene.directory / f"{name}.json"
        servers = [word for origin in http for word in ("--http", origin)]
        make = ("endpoints", "make", "--deployment", DEPLOYMENT, "--mqtt", mqtt.url)
        await scene.ota(*make, *servers, "-o", document)
        await scene.ota(
            *("artifact", "sign", document, "--key", scene.directory / "keys" / "artifact.pem", "--name", "endpoints"),
            *("--comp", "endpoints", "--format", "otad-endpoints", "--version", name),
            *("--rel", str(rel), "--hw", MODEL),
        )
        for path in (document, Path(f"{document}.statement")):
            await bucket.put(scene.endpoint, BUCKET, path.name, path.read_bytes())
        imported = await scene.api("POST", "/artifacts", {"uri": f"s3://{BUCKET}/{document.name}"})
        await scene.api("POST", "/releases", {"name": name, "artifacts": [imported["sha256"]]})

    async def roll_out(self, name: str, *stages: object) -> None:
        """Start to roll a release out in stages."""
        plan = {"name": name, "release": name, "stages": [{"devices": size} for size in stages]}
        await self.scene.api("POST", "/rollouts", plan)
        await self.scene.api("POST", f"/rollouts/{name}/start", {"reason": ""})

    async def until(self, name: str, phase: str, **states: int) -> None:
        """Wait until a rollout is in a phase with so many updates in each state."""
        view: dict[str, Any] = {}
        for _ in range(600):
            view = await self.scene.api("GET", f"/rollouts/{name}")
            if view["phase"] == phase and +Counter(view["states"]) == Counter(states):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} is {view['phase']} with {view['states']}: {view['standing']}")

    async def endpoints(self) -> dict[int, int]:
        """Return how many devices say that they go by which endpoints."""
        found = await self.scene.api("GET", "/endpoints")
        return {line["rel"]: line["devices"] for line in found["endpoints"]}

    async def firmware(self) -> dict[str, int]:
        devices = await self.scene.api("GET", "/devices")
        return dict(Counter(device["version"] for device in devices))

    def pushed(self) -> set[str]:
        """Return the devices that have MQTT, and were all at the old broker once; the others only poll."""
        return set(_CAME.findall((self.scene.directory / "broker" / "mosquitto.log").read_text()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    program = find_mosquitto()
    assert program
    behaviour = {"channels": {"push": 15, "poll": 5}, "poll_s": 10, "trial_s": 120}
    behaviour |= {"download_s": [1, 2], "install_s": [1, 2], "reboot_s": [1, 2], "selftest_s": [1, 2]}
    wishes = Wishes(devices=len(DEVICES), speed=20.0, behaviour=behaviour, config={"trust": {"moving_beat": "1s"}})
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(scene(tmp_path_factory.mktemp("move"), wishes))
        await _let_the_bridge_in(made)
        lines = [json.loads(line) for line in (made.directory / "credentials.jsonl").read_text().splitlines()]
        users = {line["device"]: line["mqtt_password"] for line in lines}
        changes = {
            "address": f"127.0.0.1:{made.broker.port}",
            "bridge_cafile": None,
            "remote_password": BRIDGE_PASSWORD,
        }
        bridge = render((SHIPPED / "ota-bridge.conf").read_text(), changes)
        bridged, lonely = [
            await stack.enter_async_context(
                mosquitto(program, users=users, directory=made.directory / name, conf_extra=extra)
            )
            for name, extra in (("bridged", bridge), ("lonely", ""))
        ]
        await made.start_fleet()
        yield Stage(made, bridged, lonely)


async def _let_the_bridge_in(made: Scene) -> None:
    """Give the bridge a login at the old broker while that one runs."""
    assert made.broker.pid is not None
    passwords = made.directory / "broker" / "passwd"
    adding = await asyncio.create_subprocess_exec("mosquitto_passwd", "-b", passwords, "ota-bridge", BRIDGE_PASSWORD)
    assert await adding.wait() == 0
    os.kill(made.broker.pid, signal.SIGHUP)


async def test_from_a_broker_that_nobody_stands_behind_all_come_back(stage: Stage) -> None:
    pushed = stage.pushed()
    assert len(pushed) == 15
    assert await stage.endpoints() == {0: 20}
    await stage.release("dead-end", 1, stage.lonely, (f"http://localhost:{free_port()}",))
    await stage.roll_out("dead-end", 6, "rest")
    await stage.until("dead-end", "halted", rolled_back=6)
    updates = [(await stage.scene.api("GET", f"/devices/{device}"))["updates"] for device in DEVICES]
    codes = Counter(update["code"] for found in updates for update in found if update["state"] == "rolled_back")
    assert codes == {"endpoint_unreachable": 6}
    assert await stage.endpoints() == {0: 20}
    assert (stage.connected("broker"), stage.connected("lonely")) == (pushed, set())
    assert " as sim-" in (stage.scene.directory / "lonely" / "mosquitto.log").read_text()
    await stage.scene.api("POST", "/rollouts/dead-end/abort", {"reason": "a broker without a bridge"})


async def test_the_fleet_moves_over_the_bridge_in_stages(stage: Stage) -> None:
    servers = (f"http://localhost:{stage.scene.port}", stage.scene.server)
    await stage.release("move", 2, stage.bridged, servers)
    await stage.roll_out("move", 4, "rest")
    await stage.until("move", "done", confirmed=20)
    assert await stage.endpoints() == {2: 20}
    assert await stage.firmware() == {"1.0.0": 20}
    assert (stage.connected("broker"), stage.connected("bridged")) == (set(), stage.pushed())


async def test_firmware_reaches_the_fleet_where_it_went(stage: Stage) -> None:
    await stage.scene.publish_release("fw-2", "2.0.0", 2, bad=False)
    await stage.roll_out("fw-2", 4, "rest")
    await stage.until("fw-2", "done", confirmed=20)
    assert await stage.firmware() == {"2.0.0": 20}
    assert await stage.endpoints() == {2: 20}
    assert (stage.connected("broker"), stage.connected("bridged")) == (set(), stage.pushed())
    assert {device["id"] for device in await stage.scene.api("GET", "/devices") if device["online"]} == stage.pushed()
