"""The real RAUC with the real rauc-hawkbit against a running daemon: it completes, fails, goes on, and is past recall.

Rules:
- One scene for the module; each test brings a release of its own to a device of its own.
- The client says success before the reboot. That is no success yet: the version that it says after it is the proof.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo.scene import Scene, Wishes, scene
from tests.support import real_clients
from tests.support.rauc import ATTRIBUTE, Signer, Unit, Workshop, workshop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class House:
    """What the tests share.

    Attributes:
        scene: the running deployment.
        workshop: where bundles are made.
        numbers: of the devices.
    """

    scene: Scene
    workshop: Workshop
    numbers: count[int]

    async def unit(self) -> Unit:
        """Enrol a device, of a model of its own."""
        name = f"board-{next(self.numbers)}"
        token = await real_clients.enrol(self.scene, name, "rauc")
        return Unit(self.workshop.folder, name, self.scene.server, token, self.workshop)

    async def roll_out(self, unit: Unit, payload: bytes, signer: Signer | None = None) -> None:
        """Bring version 2.0.0 to a device."""
        name = unit.name
        file = self.workshop.bundle(name, "2.0.0", payload, signer)
        await real_clients.sign(self.scene, file, name, "raucb")
        await real_clients.roll_out(self.scene, file.as_uri(), name, "rauc")

    async def until(self, unit: Unit, *states: str) -> dict[str, Any]:
        """Wait until the update of a device is in one of these states, and return it."""
        return await real_clients.until(self.scene, unit, *states)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    made = workshop(tmp_path_factory.mktemp("workshop"))
    config: dict[str, dict[str, object]] = {
        "sources": {"file_roots": [str(made.folder)]},
        "ddi": {"poll_interval": "1s", "version_attribute": ATTRIBUTE},
    }
    async with scene(tmp_path_factory.mktemp("scene"), Wishes(devices=1, config=config)) as running:
        yield House(running, made, count(1))


async def test_a_deployment_completes_after_the_reboot_and_not_before(house: House) -> None:
    unit = await house.unit()
    payload = os.urandom(300_000)
    await house.roll_out(unit, payload)
    async with unit.running("1.0.0"):
        await house.until(unit, "installed")
        assert (unit.slot(0), unit.slot(1)) == (b"old", payload)
        await unit.logs("Result:   SUCCESSFUL")
        await house.scene.kill_daemon()
        await house.scene.start_daemon()
        assert (await house.until(unit, "installed", "confirmed"))["state"] == "installed"
    async with unit.running("2.0.0", "B"):
        await house.until(unit, "confirmed")
    device = await house.scene.api("GET", f"/devices/{unit.name}")
    assert (device["version"], device["rel"]) == ("2.0.0", 2)
    assert (await house.scene.wait_for(unit.name, {"done"}, timeout_s=20))["phase"] == "done"


async def test_a_bundle_of_another_signer_is_refused_by_the_device(house: House) -> None:
    unit = await house.unit()
    await house.roll_out(unit, b"payload" * 1000, house.workshop.stranger)
    async with unit.running("1.0.0"):
        found = await house.until(unit, "failed")
    assert found["code"] == "install_failed"
    assert unit.slot(1) == b"old"
    assert "install_failed" in await house.scene.ota("device", "explain", unit.name)


async def test_a_recall_comes_too_late_for_what_installs_and_its_outcome_counts(house: House) -> None:
    unit = await house.unit()
    payload = os.urandom(100_000)
    await house.roll_out(unit, payload)
    unit.hold()
    async with unit.running("1.0.0"):
        await unit.installs()
        await house.scene.ota("rollout", "halt", unit.name, "--reason", "a test")
        await house.until(unit, "too_late")
        await unit.logs("Rejecting cancelation request")
        unit.go_on()
        await house.until(unit, "installed")
    assert unit.slot(1) == payload
    async with unit.running("2.0.0", "B"):
        await house.until(unit, "confirmed")
    assert (await house.scene.api("GET", f"/rollouts/{unit.name}"))["phase"] == "halted"


async def test_an_installation_that_ends_while_the_daemon_is_away_is_done_again(house: House) -> None:
    unit = await house.unit()
    payload = os.urandom(200_000)
    await house.roll_out(unit, payload)
    unit.hold()
    async with unit.running("1.0.0"):
        await unit.installs()
        await house.scene.kill_daemon()
        unit.go_on()
        await unit.wrote(payload)
        await unit.logs("temporary error")
        await house.scene.start_daemon()
        await house.until(unit, "installed")
    assert unit.slot(1) == payload
    async with unit.running("2.0.0", "B"):
        await house.until(unit, "confirmed")
