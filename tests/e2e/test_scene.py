"""A whole deployment, used as people and devices use it: rollouts, refusals, a halt, a crash.

Rules:
- One scene for the module; what a test builds on is a fixture: the rollout `good`, then the rollout `halted`.
- Four devices hear by MQTT alone, three by HTTP alone, three by both.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import pytest_asyncio

from orchestrator.demo import bucket
from orchestrator.demo.scene import BUCKET, MODEL, Scene, Wishes, scene
from orchestrator.errors import UnavailableError
from orchestrator.wire.report import MAX_REPORT_BYTES
from orchestrator.wire.topics import Channel, uplink

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICES = 10  # as many as may be in flight at once, so that all are under way together
STAGES = [{"devices": 4, "soak": "500ms"}, {"devices": "rest", "soak": "500ms"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    behaviour = {"channels": {"push": 4, "poll": 3, "both": 3}, "download_s": [20, 30], "poll_s": 15}
    wishes = Wishes(devices=DEVICES, speed=20.0, behaviour=behaviour)
    async with scene(tmp_path_factory.mktemp("scene"), wishes) as running:
        await running.start_fleet()
        yield running


async def until_states(stage: Scene, name: str, wanted: set[str], count: int) -> Counter[str]:
    """Wait until so many updates of a rollout are in one of the states, and return how many are in which."""
    states: Counter[str] = Counter()
    for _ in range(400):
        states = Counter((await stage.api("GET", f"/rollouts/{name}"))["states"])
        if sum(states[state] for state in wanted) >= count:
            return states
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} stands at {states}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good(stage: Scene) -> dict[str, Any]:
    """The rollout `good`, as it ended."""
    await stage.publish_release("fw-2", "2.0.0", 2, bad=False)
    await stage.roll_out({"name": "good", "release": "fw-2", "delivery": "hybrid", "stages": STAGES})
    return await stage.wait_for("good", {"done", "halted", "inconclusive"}, timeout_s=60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def halted(stage: Scene, good: dict[str, Any]) -> Counter[str]:
    """How many updates of the rollout `halted` were in which state after a person halted it."""
    assert good["phase"] == "done"
    await stage.publish_release("fw-3", "3.0.0", 3, bad=False)
    # On a busy machine most may have installed it before the halt: three that did not must be proof enough afterwards.
    stage_ = {"devices": "rest", "soak": "500ms", "max_failure_bound": "70%"}
    await stage.roll_out({"name": "halted", "release": "fw-3", "stages": [stage_]})
    await until_states(stage, "halted", {"accepted"}, 4)
    await stage.api("POST", "/rollouts/halted/halt", {"reason": "smoke"})
    return await until_states(stage, "halted", {"pending", "recalled", "too_late", "confirmed"}, DEVICES)


async def refused(stage: Scene, *words: str) -> str:
    """Run a command that must fail, and return what it says."""
    with pytest.raises(UnavailableError) as caught:
        await stage.ota(*words)
    return caught.value.message.partition("error: ")[2]


async def test_a_good_release_reaches_all_by_either_way_and_counts_each_once(
    stage: Scene, good: dict[str, Any]
) -> None:
    view = good
    assert (view["phase"], view["reached"], view["cohort_size"]) == ("done", DEVICES, DEVICES)
    assert {state: count for state, count in view["states"].items() if count} == {"confirmed": DEVICES}
    assert [each["confirmed"] for each in view["stages"]] == [4, DEVICES - 4]
    devices = await stage.api("GET", "/devices")
    assert {(device["version"], device["rel"]) for device in devices} == {("2.0.0", 2)}
    assert sum(device["online"] is None for device in devices) == 3  # they only ever poll
    for device in devices:
        (why,) = (await stage.api("GET", f"/devices/{device['id']}/explain"))["rollouts"]
        assert why["update"]["attempt"] == 1
        assert [report["kind"] for report in why["reports"]].count("confirmed") == 1


@pytest.mark.usefixtures("good")
async def test_artifacts_that_are_not_what_was_signed_are_refused(stage: Scene) -> None:
    signed = stage.directory / "fw-2.bin"
    statement = Path(f"{signed}.statement").read_bytes()
    objects = {"tampered.bin": signed.read_bytes()[:-1] + b"!", "tampered.bin.statement": statement, "plain.bin": b"x"}
    for key, data in objects.items():
        await bucket.put(stage.endpoint, BUCKET, key, data)
    uri = f"s3://{BUCKET}/tampered.bin"
    assert await refused(stage, "artifact", "import", uri) == (
        f"the bytes of {uri} are not those that were signed (SHA-256 differs); upload the signed file again"
    )
    uri = f"s3://{BUCKET}/plain.bin"
    assert await refused(stage, "artifact", "import", uri) == (
        f"{uri} is unsigned: there is no {uri}.statement; sign it with `ota artifact sign` and upload both"
    )


async def test_what_is_not_in_the_bucket_is_named(stage: Scene) -> None:
    text = await refused(stage, "artifact", "import", f"s3://{BUCKET}/nothing.bin")
    assert f"s3://{BUCKET}/nothing.bin" in text
    text = await refused(stage, "artifact", "import", "s3://no-such-bucket/fw.bin")
    assert "no-such-bucket" in text
    assert "bucket" in text.replace("no-such-bucket", "")
    assert "nothing.bin" not in str(await stage.api("GET", "/artifacts"))


@pytest.mark.usefixtures("good")
async def test_hostile_messages_are_refused_counted_and_harmless(stage: Scene) -> None:
    """Sent with the login of a device that only polls, whose place at the broker is free."""
    devices = await stage.api("GET", "/devices")
    name = next(device["id"] for device in devices if device["online"] is None)
    lines = (stage.directory / "credentials.jsonl").read_text().splitlines()
    password = next(item["mqtt_password"] for item in map(json.loads, lines) if item["device"] == name)
    good: dict[str, Any] = {"v": 1, "dev": name, "att": "99.1", "boot": "x", "n": 0, "kind": "accepted"}
    topic = uplink(name, Channel.REPORT)
    messages = (
        (json.dumps(good | {"msg": "x" * MAX_REPORT_BYTES}).encode(), False),
        (b"{", False),
        (json.dumps(good | {"dev": "sim-99999"}).encode(), False),
        (json.dumps(good).encode(), True),
        (json.dumps(good).encode(), False),
    )
    client = aiomqtt.Client(
        stage.broker.host, stage.broker.port, username=name, password=password, protocol=aiomqtt.ProtocolVersion.V5
    )
    async with client:
        for payload, retain in messages:
            await client.publish(topic, payload, qos=1, retain=retain)
        await client.publish(topic, b"", qos=1, retain=True)
    expected = {"refused_oversize", "refused_malformed", "refused_foreign_device", "refused_retained"}
    async with asyncio.timeout(20):
        while True:
            counts = (await stage.api("GET", "/status"))["recorder"]
            if expected | {"ignored_unknown_attempt"} <= counts.keys():
                break
            await asyncio.sleep(0.05)
    assert [counts[each] for each in sorted(expected)] == [1, 1, 1, 1]
    assert counts["ignored_unknown_attempt"] == 1
    assert await stage.api("GET", "/devices") == devices


async def test_a_halt_by_an_operator_recalls(stage: Scene, halted: Counter[str]) -> None:
    assert halted["recalled"] >= 1
    view = json.loads(await stage.ota("rollout", "get", "halted", "-o", "json"))
    assert (view["phase"], view["reason"]["text"]) == ("halted", "smoke")
    recalled = await _one_in(stage, "halted", "recalled")
    text = await stage.ota("device", "explain", recalled)
    assert "halted (halted): recalled: it was recalled before it installed anything" in text


@pytest.mark.usefixtures("halted")
async def test_a_resumed_rollout_survives_a_killed_daemon_and_explains_itself(stage: Scene) -> None:
    await stage.ota("rollout", "resume", "halted", "--reason", "it was steam")
    await _until_bytes_flow(stage, "halted")  # who has not begun to download would give up while the daemon is dead
    states = (await stage.api("GET", "/rollouts/halted"))["states"]
    await stage.kill_daemon()
    await stage.start_daemon()
    view = json.loads(await stage.ota("rollout", "get", "halted", "-o", "json"))
    assert (view["phase"], view["epoch"], view["cohort_size"]) == ("running", 1, DEVICES)
    assert sum(view["states"].values()) == sum(states.values()) == DEVICES
    explained = json.loads(await stage.ota("rollout", "explain", "halted", "-o", "json"))
    assert explained["phase"] == "running"
    assert "it was steam" in [event["text"] for event in explained["events"]]
    device = json.loads(await stage.ota("device", "explain", "sim-00000", "-o", "json"))
    assert [line["rollout"] for line in device["rollouts"]] == ["halted", "good"]
    done = await stage.wait_for("halted", {"done", "inconclusive"}, timeout_s=60)
    assert (done["phase"], done["states"]["confirmed"]) == ("done", DEVICES)
    devices = await stage.api("GET", "/devices")
    assert {device["rel"] for device in devices if device["model"] == MODEL} == {3}
    assert await stage.stop_daemon() == 0


async def _until_bytes_flow(stage: Scene, rollout: str) -> None:
    """Wait until every device is past the start of its download."""
    waiting = {device["id"] for device in await stage.api("GET", "/devices")}
    async with asyncio.timeout(30):
        while waiting:
            for name in sorted(waiting):
                lines = (await stage.api("GET", f"/devices/{name}/explain"))["rollouts"]
                reports = next(line["reports"] for line in lines if line["rollout"] == rollout)
                if reports and reports[-1]["kind"] not in ("accepted", "recalled"):
                    waiting.discard(name)


async def _one_in(stage: Scene, rollout: str, state: str) -> str:
    """Return a device whose update of a rollout is in this state."""
    for device in await stage.api("GET", "/devices"):
        updates = (await stage.api("GET", f"/devices/{device['id']}"))["updates"]
        if any((item["rollout"], item["state"]) == (rollout, state) for item in updates):
            return str(device["id"])
    raise AssertionError(f"no device is {state}")
