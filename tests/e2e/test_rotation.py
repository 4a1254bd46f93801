"""The revocation drill on real parts: a stolen trigger key is replaced, and the fleet goes on, by push and by poll."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.demo.scene import Scene, Wishes, scene

DEVICES = 20


def _plan(name: str) -> dict[str, Any]:
    deadlines = {"accept": "60s", "download": "60s", "install": "60s", "confirm": "60s"}
    stages = [{"devices": "rest", "max_failure_bound": "30%"}]
    return {"name": name, "release": name, "stages": stages, "in_flight": 10, "deadlines": deadlines}


async def _roll_out(made: Scene, number: int) -> dict[str, Any]:
    name = f"r{number}"
    await made.publish_release(name, f"{number}.0.0", number, bad=False)
    await made.roll_out(_plan(name))
    return await made.wait_for(name, {"done", "halted", "inconclusive"}, timeout_s=60)


async def _rotate(made: Scene) -> None:
    """Replace the trigger key as docs/keys.md says: roots sign, the daemon gets the new key, then the keyset."""
    keys = made.directory / "keys"
    roots = ("--root", keys / "root-1.pem", "--root", keys / "root-2.pem")
    await made.ota("keys", "rotate", "--role", "trigger", *roots, "--keys", keys / "device-keys.json")
    config = yaml.safe_load(made.config_file.read_text())
    config["trust"]["next_trigger_key_file"] = str(keys / "trigger-ep2.pem")
    config["trust"]["public_keys_file"] = str(keys / "device-keys-1.json")
    made.config_file.write_text(yaml.safe_dump(config))
    assert await made.stop_daemon() == 0
    await made.start_daemon()
    await made.ota("keys", "submit", keys / "keyset-2.jws", "--reason", "the trigger key was stolen")


@pytest.mark.timeout(180)
async def test_the_fleet_goes_on_with_the_new_keys(tmp_path: Path) -> None:
    wishes = Wishes(devices=DEVICES, seed=3, speed=20, behaviour={"channels": {"push": 0.5, "poll": 0.5}, "poll_s": 20})
    async with scene(tmp_path, wishes) as made:
        await made.start_fleet()
        assert (await _roll_out(made, 2))["phase"] == "done"
        await _rotate(made)
        view = await _roll_out(made, 3)
        assert (view["phase"], view["reached"]) == ("done", DEVICES)
        trusted = await made.api("GET", "/keyset")
        assert (trusted["epoch"], trusted["faults"]) == (2, [])
        audit = json.loads(await made.ota("audit", "verify", "-o", "json"))
        assert audit["faults"] == []
        assert await made.stop_daemon() == 0
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert sum(entry["event"] == "rekeyed" for entry in journal) == DEVICES
    assert [entry for entry in journal if entry["event"] in ("keys_refused", "refused")] == []
