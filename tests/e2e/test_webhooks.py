"""Kill the daemon with SIGKILL while it sends events: none is lost, and what comes twice is the same."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Yardstick

from orchestrator.core.trust.audit import Entry
from orchestrator.demo.scene import DEPLOYMENT, Scene, Wishes, scene
from orchestrator.wire import events
from tests.support.receiver import receiver

KILLS = 4
PLAN = {"stages": [{"devices": "rest", "max_failure_bound": "50%"}]}


@pytest.mark.timeout(420)
async def test_no_event_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    wishes = Wishes(devices=2, config={"webhooks": {"networks": ["127.0.0.0/8"]}})
    chance = random.Random(5)
    async with scene(tmp_path, wishes) as made, receiver() as there:
        secret = tmp_path / "hook.secret"
        await made.ota("webhook", "add", there.url, "--events", "rollout.*", "--secret-out", secret)
        (hook,) = await made.api("GET", "/webhooks")
        await made.publish_release("r1", "2.0.0", 2, bad=False)
        for number in range(KILLS):
            name = f"spring-{number}"
            await made.api("POST", "/rollouts", PLAN | {"name": name, "release": "r1"})
            for command in ("start", "pause", "resume", "abort"):
                await made.api("POST", f"/rollouts/{name}/{command}", {"reason": f"{command} it"})
            sleep_s = chance.uniform(0.0, 1.3)
            await asyncio.sleep(sleep_s)  # the moment is what is tried
            await made.kill_daemon()
            await made.start_daemon()
        await made.ota("webhook", "test", hook["id"], "--timeout", "60")
        expected = await _told(made)
        assert await made.stop_daemon() == 0
    assert there.types.pop() == "webhook.test"
    got = {item.id: item.body for item in there.got[:-1]}
    assert list(got) == [event.id for event in expected], "each is there, and for the first time in its turn"
    assert list(got.values()) == [events.encode(event) for event in expected]
    assert all(item.body == got[item.id] for item in there.got[:-1]), "what came twice is the same"
    assert len(expected) >= 5 * KILLS
    signed = there.got[-1]
    assert Yardstick(secret.read_text().strip()).verify(signed.body, signed.headers)["type"] == "webhook.test"


async def _told(made: Scene) -> list[events.Event]:
    """Return the events that the audit log tells of."""
    entries: list[dict[str, Any]] = []
    while page := await made.api("GET", f"/audit?limit=1000&after={entries[-1]['n'] if entries else 0}"):
        entries += page
    made_of = [events.event_of(Entry(**item), DEPLOYMENT) for item in entries]
    return [event for event in made_of if event is not None and event.type.startswith("rollout.")]
