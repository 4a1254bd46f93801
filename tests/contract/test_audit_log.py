"""What every store promises of its audit log, on real files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.trust.audit import START, Entry, Examination, Findings, Head
from orchestrator.ports import Lane, Tx
from tests.contract.test_store import add_offers, add_sealed, signed
from tests.support.store import STORES, OpenStore


@pytest.fixture(params=STORES)
def engine(request: pytest.FixtureRequest) -> OpenStore:
    return STORES[request.param]


@pytest.fixture
async def store(engine: OpenStore, tmp_path: Path) -> AsyncIterator[Any]:
    made = engine(tmp_path)
    yield made
    await made.close()


async def write(store: Any, work: Callable[[Tx], Any]) -> Any:
    return await store.transact(Lane.OPERATOR, work)


def examine(tx: Tx) -> Findings:
    walk = Examination([], tx.sealed_between)
    for entry in tx.audit_entries(0, 10_000):
        walk.look(entry)
    return walk.finish(tx.audit_head())


async def test_entries_form_a_chain_that_is_read_as_it_was_written(store: Any) -> None:
    assert await store.read(lambda tx: (tx.audit_head(), tx.audit_entries(0, 9))) == (START, [])

    def add(tx: Tx, at: float) -> Entry:
        return tx.audit("ann", "rollout.moved", "spring", {"é": at, "a": [None]}, at)

    written = [await write(store, partial(add, at=at)) for at in (0.1, 1_700_000_000.1234567, 3)]
    assert await store.read(lambda tx: tx.audit_entries(0, 9)) == written
    assert await store.read(lambda tx: tx.audit_entries(1, 1)) == written[1:2]
    assert await store.read(lambda tx: tx.audit_head()) == Head(3, written[-1].hash)
    assert [item.prev for item in written] == [START.hash, written[0].hash, written[1].hash]
    assert (await store.read(examine)).faults == ()


async def test_an_entry_stands_or_falls_with_what_it_tells_of(store: Any) -> None:
    def fail(tx: Tx) -> None:
        tx.audit("ann", "devices.enrolled", "1 devices", {}, 1.0)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await write(store, fail)
    assert await store.read(lambda tx: tx.audit_head()) == START
    assert (await write(store, lambda tx: tx.audit("ann", "x", "y", {}, 1.0))).n == 1


async def test_several_entries_of_one_transaction_follow_each_other(store: Any) -> None:
    def work(tx: Tx) -> None:
        for at in range(5):
            tx.audit("ann", "x", str(at), {}, 1.0)

    await asyncio.gather(*(store.transact(lane, work) for lane in Lane))
    found = await store.read(examine)
    assert (found.entries, found.faults) == (15, ())


async def test_secrets_and_control_characters_never_enter(store: Any) -> None:
    said = {"reason": "otad_0123456789abcdef\n" + "x" * 1000}
    entry = await write(store, lambda tx: tx.audit("a\x1bb", "x", "https://s3/x?X-Amz-Signature=1", said, 1.0))
    assert (entry.actor, entry.object) == ("a\ufffdb", "(removed)")
    assert entry.detail == '{"reason":"(removed)\ufffd' + "x" * 490 + '"}'


async def test_an_entry_cannot_be_written_in_a_read(store: Any) -> None:
    with pytest.raises(Exception, match="(?i)readonly|read-only"):
        await store.read(lambda tx: tx.audit("ann", "x", "y", {}, 1.0))


async def test_the_log_outlives_the_store(engine: OpenStore, tmp_path: Path) -> None:
    for n in (1, 2):
        store = engine(tmp_path)
        assert (await write(store, lambda tx: tx.audit("ann", "x", "y", {}, 1.0))).n == n
        await store.close()


async def test_sealed_deliveries_are_listed_in_order_of_seq(store: Any) -> None:
    assert await store.read(lambda tx: (tx.highest_seq(), tx.sealed_between(0, 99))) == (0, [])
    await write(store, lambda tx: add_sealed(tx, 4))
    assert await store.read(lambda tx: tx.highest_seq()) == 4
    lines = [(seq, f"hash {seq}") for seq in (1, 2, 3, 4)]
    assert await store.read(lambda tx: tx.sealed_between(0, 99)) == lines
    assert await store.read(lambda tx: tx.sealed_between(2, 3)) == lines[1:3]
    assert await store.read(lambda tx: tx.sealed_between(0, 99, 2)) == lines[:2]


async def test_what_is_only_planned_is_not_sealed(store: Any) -> None:
    _, parcels = await write(store, lambda tx: add_offers(tx, 2))
    await write(store, lambda tx: tx.seal(signed(parcels[1:], 5)))
    assert await store.read(lambda tx: tx.sealed_between(0, 99)) == [(5, "hash 5")]
