"""What devices that run somebody else's client of hawkBit have in common, whichever client it is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.demo.scene import Scene

STAGES = [{"devices": "rest", "max_failure_bound": "100%"}]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device that is registered.

    Attributes:
        folder: in which it has a folder of its own.
        name: its identifier.
        server: base URL of the daemon.
        token: its token.
    """

    folder: Path
    name: str
    server: str
    token: str

    @property
    def home(self) -> Path:
        """Its folder."""
        return self.folder / self.name

    @property
    def log(self) -> str:
        """All that its programs wrote so far."""
        return (self.home / "log").read_text(errors="replace")


async def enrol(scene: Scene, name: str, enforces: str) -> str:
    """Enrol a device, of a model of its own, and return its token."""
    tokens = scene.directory / f"{name}.jsonl"
    words = ("--dialect", "ddi", "--enforces", enforces, "--credentials", tokens)
    await scene.ota("device", "add", name, "--model", name, *words)
    token: str = json.loads(tokens.read_text())["token"]
    return token


async def sign(scene: Scene, file: Path, name: str, form: str) -> None:
    """Sign the statement of version 2.0.0 of an image for a device."""
    await scene.ota(
        *("artifact", "sign", file, "--key", scene.directory / "keys" / "artifact.pem", "--name", name),
        *("--version", "2.0.0", "--rel", "2", "--hw", name, "--format", form),
    )


async def roll_out(scene: Scene, uri: str, name: str, signature: str) -> None:
    """Import an image, in which this native signature must be recognised, and bring it to a device."""
    made = json.loads(await scene.ota("artifact", "import", uri, "-o", "json"))
    assert made["signature"] == signature
    await scene.ota("release", "create", name, "--artifact", made["sha256"])
    await scene.roll_out({"name": name, "release": name, "stages": STAGES})


async def until(scene: Scene, unit: Enrolled, *states: str) -> dict[str, Any]:
    """Wait until the update of a device is in one of these states, and return it."""
    found: dict[str, Any] = {}
    for _ in range(900):
        view = await scene.api("GET", f"/devices/{unit.name}")
        found = next(iter(view["updates"]), {})
        if found.get("state") in states:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{unit.name} is {found}; {unit.log[-4000:] if unit.home.exists() else 'never ran'}")
