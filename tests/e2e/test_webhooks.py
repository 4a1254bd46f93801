"""Kill the daemon with SIGKILL while it sends events, by HTTP and over a broker: none is lost, and what comes twice is
the same."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from standardwebhooks import Webhook as Yardstick

from orchestrator.core.trust.audit import Entry
from orchestrator.demo.broker import BrokerInfo
from orchestrator.demo.scene import DEPLOYMENT, Scene, Wishes, scene
from orchestrator.wire import events, topics
from tests.support.receiver import receiver

KILLS = 4
PLAN = {"stages": [{"devices": "rest", "max_failure_bound": "50%"}]}
TEST = "webhook.test"


@asynccontextmanager
async def listener(broker: BrokerInfo) -> AsyncIterator[list[bytes]]:
    """Listen to events as a program of an operator does; gives what has come so far."""
    heard: list[bytes] = []
    async with aiomqtt.Client(broker.host, broker.port, identifier="listener") as client:
        await client.subscribe("ota/v1/events/#", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                body = bytes(message.payload)
                assert message.topic.value == topics.event(json.loads(body)["type"])
                assert (message.qos, message.retain) == (1, False)
                heard.append(body)

        task = asyncio.create_task(listen())
        try:
            yield heard
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.timeout(420)
async def test_no_event_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    wishes = Wishes(devices=2, guarded=False, config={"webhooks": {"networks": ["127.0.0.0/8"]}})
    chance = random.Random(5)
    async with scene(tmp_path, wishes) as made, receiver() as there, listener(made.broker) as heard:
        secret = tmp_path / "hook.secret"
        await made.ota("webhook", "add", there.url, "--events", "rollout.*", "--secret-out", secret)
        await made.ota("webhook", "add", "mqtt:", "--events", "rollout.*")
        hooks = await made.api("GET", "/webhooks")
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
        for hook in hooks:
            await made.ota("webhook", "test", hook["id"], "--timeout", "60")
        async with asyncio.timeout(30):  # the broker has it, and passes it on
            while not heard or json.loads(heard[-1])["type"] != TEST:
                await asyncio.sleep(0.01)
        expected = await _told(made)
        assert await made.stop_daemon() == 0
    assert len(expected) >= 5 * KILLS
    _judge([got.body for got in there.got], expected)
    _judge(heard, expected)
    yardstick = Yardstick(secret.read_text().strip())
    for got in there.got:
        assert yardstick.verify(got.body, got.headers)["id"] == got.id


def _judge(came: Sequence[bytes], expected: Sequence[events.Event]) -> None:
    """Hold what came at a destination against what happened."""
    *told, tried = came
    assert json.loads(tried)["type"] == TEST, "it comes behind all that waited"
    first: dict[str, bytes] = {}
    for body in told:
        assert first.setdefault(json.loads(body)["id"], body) == body, "what came twice is the same"
    assert list(first) == [event.id for event in expected], "each is there, and for the first time in its turn"
    assert list(first.values()) == [events.encode(event) for event in expected]


async def _told(made: Scene) -> list[events.Event]:
    """Return the events that the audit log tells of."""
    entries: list[dict[str, Any]] = []
    while page := await made.api("GET", f"/audit?limit=1000&after={entries[-1]['n'] if entries else 0}"):
        entries += page
    made_of = [events.event_of(Entry(**item), DEPLOYMENT) for item in entries]
    return [event for event in made_of if event is not None and event.type.startswith("rollout.")]
