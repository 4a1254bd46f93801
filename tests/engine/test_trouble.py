"""What keeps triggers from working is told: no key that is good, and devices that refuse."""

from __future__ import annotations

from typing import Any

from orchestrator.core.judging.health import HealthRule, Missing, Side
from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.insight import explain, views
from orchestrator.verifier import REASONS
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant

FAULTS = ("No trigger key at hand is good under keyset 3: configure the private key of k3.", "Key k2 is not in it.")
SAID = f"no trigger can be signed: {' '.join(FAULTS)}"
View = dict[str, Any]


async def explained(it: Plant, faults: tuple[str, ...] = FAULTS) -> View:
    return await it.store.read(
        lambda tx: explain.explain_rollout(tx, "spring", it.clock(), hearing=it.hearing(), faults=faults)
    )


async def why(it: Plant, device: str, faults: tuple[str, ...] = FAULTS) -> View:
    found = await it.store.read(
        lambda tx: explain.explain_device(tx, device, it.clock(), hearing=it.hearing(), faults=faults)
    )
    [rollout] = found["rollouts"]
    return rollout  # type: ignore[no-any-return]


async def test_a_rollout_says_that_no_trigger_can_be_signed(it: Plant) -> None:
    await it.enrol(4)
    rollout = await it.running(make_plan((REST,)))
    name = (await it.updates(rollout))[0].device_id
    found = await explained(it)
    assert (found["because"], found["code"]) == (SAID, "no_signer")
    shown = await it.store.read(
        lambda tx: views.rollout_view(tx, "spring", it.clock(), hearing=it.hearing(), faults=FAULTS)
    )
    assert shown["standing"]["text"] == SAID
    assert (await explained(it, ()))["code"] != "no_signer"
    device = await why(it, name)
    assert (device["because"], device["reasons"][0]["code"]) == (SAID, "no_signer")
    assert (await why(it, name, ()))["because"] != SAID


async def test_it_is_no_reason_where_nothing_has_to_be_signed(it: Plant) -> None:
    await it.enrol(4)
    rollout = await it.running(make_plan((REST,), soak_s=60))
    await it.seal()
    assert (await explained(it))["code"] != "no_signer"
    assert (await why(it, (await it.updates(rollout))[0].device_id))["because"] != SAID
    await it.command(rollout, Command.PAUSE)
    assert (await explained(it))["code"] != "no_signer"


async def test_refusals_are_counted_by_reason_and_explained(it: Plant) -> None:
    await it.enrol(5)
    rollout = await it.running(make_plan((REST,)))
    assert (await explained(it, ()))["refusals"] == []
    await it.send()
    updates = await it.updates(rollout, UpdateState.OFFERED)
    await it.say(updates[:3], Kind.REFUSED, code="stale_seq")
    found = await explained(it, ())
    assert found["next"][0] == "3 of 5 devices refused: stale_seq"
    await it.say(updates[3:4], Kind.REFUSED, code="wrong_epoch")
    found = await explained(it, ())
    assert found["next"][0] == "4 of 5 devices refused: 3 stale_seq, 1 wrong_epoch"
    assert found["refusals"] == [
        {"code": "stale_seq", "devices": 3, "text": REASONS["stale_seq"]},
        {"code": "wrong_epoch", "devices": 1, "text": REASONS["wrong_epoch"]},
    ]


async def test_failures_are_counted_by_reason_and_a_sick_measure_names_its_bound(it: Plant) -> None:
    await it.enrol(6)
    health = (HealthRule("temperature", Side.BELOW, 80.0), HealthRule("voltage", Side.ABOVE, 3.3, Missing.FAIL))
    rollout = await it.running(make_plan((REST,), health=health))
    assert (await explained(it, ()))["failures"] == []
    await it.send()
    updates = await it.updates(rollout, UpdateState.OFFERED)
    await it.say(updates[:2], Kind.CONFIRMED, metrics={"temperature": 95.0, "voltage": 3.5})
    await it.say(updates[2:3], Kind.CONFIRMED, metrics={"temperature": 50.0})
    await it.say(updates[3:5], Kind.CONFIRMED, metrics={"temperature": 50.0, "voltage": 3.5})
    await it.say(updates[4:5], Kind.ROLLED_BACK, n=1, code="self_test_crash")
    bounds = "temperature must be below 80, voltage must be above 3.3"
    found = (await explained(it, ()))["failures"]
    assert found[0] == {"code": "unhealthy", "devices": 2, "text": bounds}
    assert sorted((item["code"], item["devices"], item["text"]) for item in found[1:]) == [
        ("metric_missing", 1, bounds),
        ("self_test_crash", 1, ""),
    ]


async def test_the_last_refusal_of_a_device_is_told_with_its_meaning(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    [update] = await it.updates(rollout, UpdateState.OFFERED)
    assert (await why(it, update.device_id, ()))["refusal"] is None
    await it.send()
    await it.say([update], Kind.REFUSED, code="stale_seq")
    refusal = (await why(it, update.device_id, ()))["refusal"]
    assert (refusal["code"], refusal["means"], refusal["stands"]) == ("stale_seq", REASONS["stale_seq"], True)
