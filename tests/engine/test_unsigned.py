"""Devices that verify no trigger: what is kept from them, also when operators say so only later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.core.model import Remark, UpdateState
from orchestrator.core.pace.ceiling import STANDARD
from orchestrator.core.rollout import Return
from orchestrator.core.targeting.facts import Change
from orchestrator.engine.insight import explain
from orchestrator.engine.offers import polling, tasks
from orchestrator.engine.rollouts import effects, operations
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.targeting import facts, unsigned
from orchestrator.ports import Tx
from orchestrator.wire.report import Kind
from tests.support.builders import make_plan
from tests.support.factory import Plant, make_artifact

S = UpdateState


async def change(it: Plant, device: str, **said: Any) -> None:
    """Change what operators say of a device."""
    wanted = {device: Change(**said)}
    await it.write(lambda tx: facts.change(tx, wanted, it.clock(), actor="ann"))


async def allow(it: Plant, reason: str) -> None:
    await it.write(lambda tx: unsigned.settle(tx, reason, it.clock()))


async def codes(it: Plant, device: str) -> list[str]:
    """Return what keeps a device from the release."""
    view = await it.store.read(lambda tx: explain.explain_device(tx, device, it.clock(), hearing=True))
    return [reason["code"] for reason in view["rollouts"][0]["reasons"]]


async def test_who_is_said_to_verify_nothing_after_it_was_taken_in_is_offered_nothing(it: Plant) -> None:
    await it.enrol(2)
    rollout = await it.running(make_plan(in_flight=1))
    [first] = await it.updates(rollout, S.OFFERED)
    [second] = await it.updates(rollout, S.PENDING)
    await change(it, second.device_id, dialect="ddi", enforces=("rauc",))
    await it.seal()
    await it.send()
    await it.confirm([first])
    await it.advance(rollout)
    assert await it.states(rollout) == {"confirmed": 1, "pending": 1}
    assert await codes(it, second.device_id) == ["unsigned_client"]
    await allow(it, "a laboratory")
    it.clock.advance(3600)
    await it.advance(rollout)
    assert await it.states(rollout) == {"confirmed": 1, "offered": 1}


async def test_who_was_offered_an_image_before_is_told_nothing_of_it_here(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running()
    await it.seal()
    await it.poll("d000")
    await change(it, "d000", dialect="ddi")
    [update] = await it.updates(rollout)

    def told(tx: Tx) -> tasks.Task | None:
        device = tx.device("d000")
        assert device is not None
        answer = polling.look(tx, device, it.clock())
        assert answer is not None
        assert answer.brings is not None
        return tasks.task_of(tx, device, answer.brings)

    assert await it.store.read(told) is None
    await allow(it, "a laboratory")
    task = await it.store.read(told)
    assert task is not None
    assert (task.update, task.recall, task.may_fetch) == (update, False, True)


async def test_each_offer_of_an_attempt_is_a_round_of_its_own(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running()
    [update] = await it.updates(rollout)
    rounds = []
    for _ in range(2):
        rounds.append(await it.store.read(lambda tx: tasks.round_of(tx, update)))
        await it.seal()
        rounds.append(await it.store.read(lambda tx: tasks.round_of(tx, update)))
        await it.poll("d000")
        await it.say(await it.updates(rollout), Kind.RECALLED, len(rounds))
        await it.write(lambda tx: effects.carry_out(tx, rollout, Return(), it.clock(), STANDARD))
        await it.advance(rollout)
    rounds.append(await it.store.read(lambda tx: tasks.round_of(tx, update)))
    assert rounds[:2] == [0, 0]
    assert 0 < rounds[2] == rounds[3] < rounds[4]


async def test_only_a_change_of_the_permission_is_written(it: Plant) -> None:
    await allow(it, "")
    assert await it.store.read(lambda tx: tx.unsigned_clients()) == ""
    for reason in ("one", "one", "two", ""):
        await allow(it, reason)
        assert await it.store.read(lambda tx: tx.unsigned_clients()) == reason
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 100))
    told = [entry.detail for entry in entries if entry.action.startswith("unsigned_clients.")]
    assert len(told) == 3


async def test_a_token_that_is_renewed_leaves_the_dialect_unless_it_is_named(it: Plant) -> None:
    async def enrolled(**said: Any) -> tuple[str, tuple[str, ...]]:
        new = NewDevice("d1", "m1", **said)
        await it.write(lambda tx: operations.enrol(tx, [new], it.clock()))
        device = await it.store.read(lambda tx: tx.device("d1"))
        assert device is not None
        return device.dialect, device.enforces

    assert await enrolled() == ("otad", ())
    assert await enrolled(dialect="ddi", enforces=("swupdate",)) == ("ddi", ("swupdate",))
    assert await enrolled() == ("ddi", ("swupdate",))
    assert await enrolled(enforces=()) == ("ddi", ())


async def test_an_image_that_is_looked_at_anew_gets_what_was_found(it: Plant) -> None:
    old = make_artifact()
    found = replace(old, signature="rauc", sha1="a" * 40, md5="b" * 32, uri="file:///elsewhere")
    found = replace(found, recognised="raucb", remarks=(Remark("odd", "it is odd", "look at it"),))
    for artifact in (old, found):
        await it.write(lambda tx, item=artifact: operations.register_artifact(tx, item, it.clock()))
    assert await it.store.read(lambda tx: tx.artifact(old.sha256)) == replace(found, uri=old.uri)


async def test_a_version_that_is_not_new_to_a_device_proves_nothing(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running()
    await it.seal()
    await it.poll("d000")
    [update] = await it.updates(rollout)
    device = await it.store.read(lambda tx: tx.device("d000"))
    assert device is not None

    async def shown(says: str, before: str = "1.0.0") -> tuple[int, int | None]:
        rel, proven = await it.store.read(lambda tx: tasks.shows(tx, replace(device, version=before), says))
        return rel, None if proven is None else proven.id

    assert await shown("2.0.0") == (2, None)  # it was only offered
    await it.write(lambda tx: tx.save_updates([update._replace(state=S.DOWNLOADED)]))
    assert await shown("2.0.0") == (2, update.id)
    assert await shown("2.0.0", before="") == (2, None)
    assert await shown("2.0.0", before="2.0.0") == (2, None)
    assert await shown("3.0.0") == (0, None)  # nobody knows which one it is
    assert await shown("1.0.0") == (1, None)
    await it.write(lambda tx: tx.save_updates([update._replace(state=S.INSTALLED)]))
    assert await shown("2.0.0", before="") == (2, update.id)
