"""The real SWUpdate against a running daemon: it completes, fails, falls back, is recalled, and goes on after a kill.

Rules:
- One scene for the module; each test brings a release of its own to a device of its own.
- Images are checked by SWUpdate itself, which is why it may be offered them although it verifies no trigger.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.demo import bucket
from orchestrator.demo.scene import BUCKET, Scene, Wishes, scene
from tests.support import real_clients
from tests.support.swupdate import Unit, Workshop, workshop

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class House:
    """What the tests share.

    Attributes:
        scene: the running deployment.
        workshop: where updates are made.
        numbers: of the releases.
    """

    scene: Scene
    workshop: Workshop
    numbers: count[int]

    async def unit(self) -> Unit:
        """Enrol a device, of a model of its own."""
        name = f"unit-{next(self.numbers)}"
        token = await real_clients.enrol(self.scene, name, "swupdate")
        return Unit(self.workshop.folder, name, self.scene.server, token, self.workshop)

    async def roll_out(self, unit: Unit, payload: bytes, *, s3: bool = False, into: Path | None = None) -> Path:
        """Bring version 2.0.0 to a device, and return where its payload will lie."""
        name, where = unit.name, into or self.workshop.folder / f"installed-{unit.name}"
        file = self.workshop.update(f"{name}-update", "2.0.0", payload, where)
        await real_clients.sign(self.scene, file, name, "swu")
        uri = file.as_uri()
        if s3:
            uri = f"s3://{BUCKET}/{file.name}"
            for path in (file, Path(f"{file}.statement")):
                await bucket.put(self.scene.endpoint, BUCKET, path.name, path.read_bytes())
        await real_clients.roll_out(self.scene, uri, name, "swupdate")
        return where

    async def running(self, unit: Unit, version: str) -> int:
        """Wait until a device has said that it runs a version, and return the release counter that is known of it."""
        device: dict[str, Any] = {}
        for _ in range(300):
            device = await self.scene.api("GET", f"/devices/{unit.name}")
            if device["version"] == version:
                return int(device["rel"])
            await asyncio.sleep(0.1)
        raise AssertionError(f"{unit.name} runs {device['version']!r}")

    async def until(self, unit: Unit, *states: str) -> dict[str, Any]:
        """Wait until the update of a device is in one of these states, and return it."""
        return await real_clients.until(self.scene, unit, *states)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    made = workshop(tmp_path_factory.mktemp("workshop"))
    config: dict[str, dict[str, object]] = {
        "sources": {"file_roots": [str(made.folder)]},
        "ddi": {"poll_interval": "1s"},
    }
    async with scene(tmp_path_factory.mktemp("scene"), Wishes(devices=1, config=config)) as running:
        yield House(running, made, count(1))


async def test_a_deployment_completes_after_the_reboot_and_not_before(house: House) -> None:
    unit = await house.unit()
    payload = os.urandom(300_000)
    where = await house.roll_out(unit, payload, s3=True)
    async with unit.running("1.0.0"):
        await house.until(unit, "installed")
        assert where.read_bytes() == payload
    await house.scene.kill_daemon()
    await house.scene.start_daemon()
    async with unit.running("2.0.0", "-c", "2"):
        await house.until(unit, "confirmed")
        assert await house.running(unit, "2.0.0") == 2
    assert (await house.scene.wait_for(unit.name, {"done"}, timeout_s=20))["phase"] == "done"


async def test_a_deployment_that_cannot_be_installed_fails(house: House) -> None:
    unit = await house.unit()
    await house.roll_out(unit, b"payload" * 1000, into=Path("/proc/no-such-place/payload"))
    async with unit.running("1.0.0"):
        found = await house.until(unit, "failed")
    assert found["code"] == "install_failed"
    told = await house.scene.ota("device", "explain", unit.name)
    assert "install_failed" in told


async def test_a_device_that_fell_back_in_its_reboot_says_so(house: House) -> None:
    unit = await house.unit()
    await house.roll_out(unit, b"payload" * 1000)
    async with unit.running("1.0.0"):
        await house.until(unit, "installed")
    async with unit.running("1.0.0", "-c", "3"):
        found = await house.until(unit, "rolled_back", "failed", "confirmed", "lost")
    assert (found["state"], found["code"]) == ("rolled_back", "install_failed")


async def test_a_deployment_is_cancelled_in_its_download(house: House) -> None:
    unit = await house.unit()
    where = await house.roll_out(unit, os.urandom(4_000_000))
    async with unit.running("1.0.0", "-n", "100k"):
        await house.until(unit, "accepted")
        await house.scene.ota("rollout", "halt", unit.name, "--reason", "a test")
        await house.until(unit, "recalled")
    assert not where.exists()


async def test_a_download_goes_on_after_the_daemon_was_killed(house: House) -> None:
    unit = await house.unit()
    payload = os.urandom(2_000_000)
    where = await house.roll_out(unit, payload)
    async with unit.running("1.0.0", "-n", "300k", "-r", "60"):
        await house.until(unit, "accepted")
        await house.scene.kill_daemon()
        await house.scene.start_daemon()
        await unit.logs("pending testing")
    assert where.read_bytes() == payload
    async with unit.running("2.0.0", "-c", "2"):
        await house.until(unit, "confirmed")
