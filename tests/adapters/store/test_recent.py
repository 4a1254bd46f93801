"""Updates at hand are what was committed last, and never more than fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.adapters.store.recent import Recent
from orchestrator.core.model import Update, UpdateState
from orchestrator.ports import Lane, Tx
from tests.contract.test_store import add_fleet
from tests.support.builders import make_update


def test_the_oldest_go_first() -> None:
    recent = Recent(limit=2)
    one, two, three = (make_update(id=number) for number in (1, 2, 3))
    recent.commit([one, two])
    recent.commit([one])
    recent.commit([three])
    assert [recent.get(number) for number in (1, 2, 3)] == [one, None, three]


async def _opened(store: SqlStore) -> Update:
    def work(tx: Tx) -> Update:
        return add_fleet(tx, 1)[1][0]

    return await store.transact(Lane.BULK, work)


@pytest.mark.parametrize("fails", [True, False])
async def test_only_what_was_committed_is_seen(tmp_path: Path, fails: bool) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'state.db'}")
    before = await _opened(store)
    after = before._replace(state=UpdateState.OFFERED, code="seen")

    def work(tx: Tx) -> None:
        tx.save_updates([after])
        assert tx.updates([before.id]) == {before.id: after}
        if fails:
            raise ValueError("the batch is bad")

    try:
        await store.transact(Lane.REPORTS, work)
    except ValueError:
        assert fails
    expected = {before.id: before if fails else after}
    assert await store.transact(Lane.REPORTS, lambda tx: tx.updates([before.id])) == expected
    assert await store.read(lambda tx: tx.updates([before.id])) == expected
    await store.close()
