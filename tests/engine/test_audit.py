"""What enters the audit log, and when its end is kept outside the database."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from orchestrator.adapters.checkpoints import open_checkpoint
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.rollout import Command
from orchestrator.core.trust.audit import Checkpoint, Entry, Examination, Head, names_hash
from orchestrator.engine.rollouts import operations
from orchestrator.engine.trust.audit import EVERY_ENTRIES, EVERY_S, Auditor
from orchestrator.errors import ConflictError, UnavailableError
from orchestrator.ports import Tx
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Plant, make_artifact

PRIVATE = ec.derive_private_key(31, ec.SECP256R1())
SIGNER = FileSigner(PRIVATE)


async def entries(it: Plant, after: int = 0) -> list[Entry]:
    return await it.store.read(lambda tx: tx.audit_entries(after, 10_000))


async def told(it: Plant, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (actor, object, detail) of the entries with this action."""
    found = [item for item in await entries(it) if item.action == action]
    return [(item.actor, item.object, json.loads(item.detail)) for item in found]


class Outside:
    """Who pins heads and keeps checkpoints, in the order in which that was asked of them."""

    def __init__(self) -> None:
        self.calls: list[Head | Checkpoint] = []
        self.error: Exception | None = None

    async def pin(self, head: Head) -> None:
        self.calls.append(head)

    def keep(self, token: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(open_checkpoint(token, PRIVATE.public_key()))

    @property
    def kept(self) -> list[int]:
        return [item.n for item in self.calls if isinstance(item, Checkpoint)]


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def auditor(it: Plant, outside: Outside) -> Auditor:
    return Auditor(it.store, outside, SIGNER, outside, it.clock)


async def add(it: Plant, count: int) -> None:
    def work(tx: Tx) -> None:
        for _ in range(count):
            tx.audit("ann", "x", "y", {}, it.clock())

    await it.write(work)


# What enters


async def test_every_act_has_its_entry(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.create()
    artifact = make_artifact(9)
    for _ in range(2):  # the second time nothing is new
        await it.write(lambda tx: operations.register_artifact(tx, artifact, it.clock()))
    await it.command(rollout, Command.START)
    await it.command(rollout, Command.HALT, "a bad smell")
    assert await told(it, "devices.enrolled") == [
        ("operator", "3 devices", {"count": 3, "new": 3, "sha256": names_hash(["d000", "d001", "d002"])})
    ]
    [(actor, name, release)] = await told(it, "release.created")
    assert (actor, name, release["rel"]) == ("operator", "radio-2.0.0", 2)
    [(actor, name, made)] = await told(it, "rollout.created")
    assert (actor, name, made["id"], made["release"]) == ("ann", "spring", rollout.id, "radio-2.0.0")
    [(actor, name, imported)] = await told(it, "artifact.imported")
    assert (actor, name, imported["rel"]) == ("orchestrator", artifact.sha256, 9)
    moves = await told(it, "rollout.moved")
    assert [(actor, said["from"], said["to"]) for actor, _, said in moves] == [
        ("ann", "draft", "preparing"),
        ("ann", "preparing", "halted"),
    ]
    assert moves[-1][2]["reason"] == "a bad smell"


async def test_what_the_daemon_decides_has_its_entry_too(it: Plant) -> None:
    await it.enrol(5)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.say(await it.updates(rollout), Kind.FAILED, rel=1, code="boot")
    rollout = await it.advance(rollout)
    assert rollout.phase == "halted"
    actor, name, said = (await told(it, "rollout.moved"))[-1]
    assert (actor, name, said["to"], said["code"]) == (rollout.actor, "spring", "halted", rollout.reason.code)
    record = await it.store.read(lambda tx: tx.events(rollout.id))
    assert len(record) == len(await told(it, "rollout.moved")) + 1, "all but its creation"


async def test_a_command_that_is_refused_has_none(it: Plant) -> None:
    rollout = await it.create()
    before = len(await entries(it))
    with pytest.raises(ConflictError):
        await it.command(rollout, Command.RESUME)
    assert len(await entries(it)) == before


async def test_a_token_never_enters(it: Plant) -> None:
    tokens = await it.write(lambda tx: operations.enrol(tx, [operations.NewDevice("d1", "m1")], 1.0, actor="ann"))
    text = repr(await entries(it))
    assert "ann" in text
    assert tokens["d1"] not in text
    assert operations.token_hash(tokens["d1"]) not in text


async def test_a_sealed_batch_is_told_of_in_its_own_transaction(it: Plant) -> None:
    it.settings.batch = 2
    await it.restart()
    await it.enrol(5)
    rollout = await it.running(make_plan((REST,)))
    await it.seal()
    batches = await told(it, "deliveries.sealed")
    assert [(said["first"], said["last"], said["count"]) for _, _, said in batches] == [(1, 2, 2), (3, 4, 2), (5, 5, 1)]
    await it.command(rollout, Command.HALT)  # what is void now was sealed all the same

    def examine(tx: Tx) -> Any:
        walk = Examination([], tx.sealed_between)
        for entry in tx.audit_entries(0, 1000):
            walk.look(entry)
        return walk.finish(tx.audit_head(), to_the_end=True)

    found = await it.store.read(examine)
    assert (found.batches, found.triggers, found.faults) == (3, 5, ())


async def test_a_batch_of_which_nothing_was_stored_is_not_told_of(it: Plant) -> None:
    await it.enrol(2)
    await it.running(make_plan((REST,)))
    object.__setattr__(it.sealer._settings, "public_url", "https://" + "a" * 900)  # too long for a trigger
    assert await it.sealer.seal_once() == 2
    assert await told(it, "deliveries.sealed") == []


# When it is kept outside


async def test_a_checkpoint_follows_so_many_entries(it: Plant, auditor: Auditor, outside: Outside) -> None:
    assert not await auditor.keep_if_due(), "there is nothing yet"
    await add(it, EVERY_ENTRIES - 1)
    assert not await auditor.keep_if_due()
    await add(it, 1)
    assert await auditor.keep_if_due()
    head = await it.store.read(lambda tx: tx.audit_head())
    assert outside.calls == [head, Checkpoint(head.n, head.hash, it.clock(), 0)], "pinned first"
    assert not await auditor.keep_if_due()


async def test_a_checkpoint_follows_the_first_new_entry_after_so_long(
    it: Plant, auditor: Auditor, outside: Outside
) -> None:
    await add(it, 1)
    assert not await auditor.keep_if_due()
    it.clock.advance(EVERY_S - 1)
    await add(it, 1)
    assert not await auditor.keep_if_due()
    it.clock.advance(1)
    assert await auditor.keep_if_due()
    it.clock.advance(10 * EVERY_S)
    assert not await auditor.keep_if_due(), "nothing is new"
    await add(it, 1)
    assert not await auditor.keep_if_due(), "the time runs from the new entry"
    assert outside.kept == [2]


async def test_a_clock_that_is_set_back_holds_nothing_up_for_long(it: Plant, auditor: Auditor) -> None:
    await add(it, 1)
    assert not await auditor.keep_if_due()
    it.clock.advance(-100_000)
    assert not await auditor.keep_if_due()
    it.clock.advance(EVERY_S)
    assert await auditor.keep_if_due()


async def test_start_and_stop_are_noted_and_kept_at_once(it: Plant, auditor: Auditor, outside: Outside) -> None:
    await it.write(lambda tx: tx.reserve(7))
    with capture_logs() as logs:
        await auditor.start({"version": "1.2"})
        await auditor.stop()
    assert await told(it, "daemon.started") == [("orchestrator", "daemon", {"version": "1.2", "seq": 7})]
    assert await told(it, "daemon.stopped") == [("orchestrator", "daemon", {"seq": 7})]
    assert outside.kept == [1, 2]
    assert [(entry["event"], entry["n"], entry["seq"]) for entry in logs] == [
        ("audit.checkpoint", 1, 7),
        ("audit.checkpoint", 2, 7),
    ]


async def test_without_a_key_the_end_is_pinned_all_the_same(it: Plant, outside: Outside) -> None:
    auditor = Auditor(it.store, outside, None, outside, it.clock)
    with capture_logs() as logs:
        await auditor.start({})
        await add(it, EVERY_ENTRIES)
        assert await auditor.keep_if_due()
    assert [entry["event"] for entry in logs] == ["audit.no_checkpoints"]
    assert [item.n for item in outside.calls] == [1, 65]
    assert outside.kept == []


async def test_a_witness_that_is_away_is_tried_again(it: Plant, auditor: Auditor, outside: Outside) -> None:
    outside.error = UnavailableError("the disk is full", code="checkpoints")
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            outside.error = None
        await it.store.read(lambda tx: None)

    with capture_logs() as logs:
        await auditor.start({})
        async with running(auditor.run(pause)):
            await until(lambda: bool(outside.kept))
    assert outside.kept == [1]
    waits = [entry for entry in logs if entry["event"] == "audit.waits"]
    assert [entry["error"] for entry in waits] == ["the disk is full"] * 3
    it.store.fails = 1
    with pytest.raises(UnavailableError):
        await auditor.stop()


async def test_a_daemon_that_was_overtaken_ends(it: Plant, auditor: Auditor, outside: Outside) -> None:
    async def pin(head: Head) -> None:
        raise ConflictError("another daemon", code="fenced")

    outside.pin = pin  # type: ignore[method-assign]
    await add(it, EVERY_ENTRIES)
    with pytest.raises(ConflictError):
        await auditor.run()
