"""What a store tells of its commits: each that touches anything, before who asked for it hears of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.store import SqlStore
from orchestrator.core.model import Delivery, Phase, Rollout, UpdateState
from orchestrator.core.targeting.cohort import Member
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Touched, Tx
from orchestrator.wire.report import State
from tests.support.builders import REST, make_device, make_draft, make_plan
from tests.support.factory import stock
from tests.support.store import STORES, opened

MEMBER = Member(0, "d1", "m1", "")


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with opened(tmp_path, STORES[request.param]) as running:
        yield running


class Told:
    """A listener that keeps what it hears."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._heard: list[Touched] = []
        store.watch(self._heard.append)

    async def by(self, work: Any) -> Touched:
        """Return what a commit told, once it is answered."""
        self._heard.clear()
        await self._store.transact(Lane.BULK, work)
        assert len(self._heard) <= 1
        return self._heard[0] if self._heard else Touched()


def _fill(tx: Tx) -> Rollout:
    tx.enrol([(make_device("d1"), "a"), (make_device("d2"), "b")])
    stock(tx)
    return tx.add_rollout(make_draft(make_plan((REST,)), phase=Phase.RUNNING), b"secret")


async def test_a_device_is_told_of_when_anything_but_its_last_word_changes(store: SqlStore) -> None:
    await store.transact(Lane.BULK, _fill)
    told = Told(store)
    d1 = Touched(devices=frozenset({"d1"}))
    changed = replace(make_device("d1"), attributes={"ring": "blue"})
    assert await told.by(lambda tx: tx.enrol([(make_device("d1"), "c")])) == d1
    assert await told.by(lambda tx: tx.set_facts([changed], 5.0)) == d1
    assert await told.by(lambda tx: tx.quarantine(["d1"], "it smokes", 5.0)) == d1
    assert await told.by(lambda tx: tx.mark_online([State(v=1, dev="d1", online=True)], 5.0)) == d1
    for nothing_new in (
        lambda tx: tx.mark_online([State(v=1, dev="d1", online=True)], 6.0),
        lambda tx: tx.mark_seen({"d1": 7.0}),
        lambda tx: tx.enrol([(make_device("d3"), "d")]),
        lambda tx: tx.touch(),
    ):
        assert await told.by(nothing_new) == Touched()


async def test_a_device_is_told_of_when_a_poll_may_bring_it_something(store: SqlStore) -> None:
    rollout = await store.transact(Lane.BULK, _fill)
    told = Told(store)
    assert await told.by(lambda tx: tx.open_updates(rollout, [MEMBER], 2, 0.0)) == Touched()
    [update] = await store.read(lambda tx: tx.updates_of(["d1"]))
    due = Touched(due=frozenset({"d1"}))
    for state, expected in (
        (UpdateState.OFFERED, due),
        (UpdateState.ACCEPTED, Touched()),
        (UpdateState.CONFIRMED, Touched()),
        (UpdateState.UNREACHED, due),
        (UpdateState.RECALLING, due),
    ):
        moved = update._replace(state=state)
        assert await told.by(lambda tx, moved=moved: tx.save_updates([moved])) == expected


async def test_everyone_is_told_of_when_a_rollout_speaks_to_all_of_its_devices(store: SqlStore) -> None:
    rollout = await store.transact(Lane.BULK, _fill)
    told = Told(store)
    pushed = replace(rollout, plan=replace(rollout.plan, delivery=Delivery.PUSH))
    done = replace(pushed, phase=Phase.DONE)
    for changed, expected in (
        (replace(rollout, actor="ben"), Touched()),
        (pushed, Touched(everyone=True)),
        (done, Touched()),
        (pushed, Touched(everyone=True)),
    ):
        assert await told.by(lambda tx, changed=changed: tx.save_rollout(changed, None)) == expected


async def test_what_was_rolled_back_is_not_told_with_the_next_commit(store: SqlStore) -> None:
    await store.transact(Lane.BULK, _fill)
    told = Told(store)

    def broken(tx: Tx) -> None:
        tx.quarantine(["d1"], "it smokes", 5.0)
        raise UnavailableError("the test wants it")

    with pytest.raises(UnavailableError):
        await told.by(broken)
    found = await told.by(lambda tx: tx.quarantine(["d2"], "it smokes", 5.0))
    assert found == Touched(devices=frozenset({"d2"}))
