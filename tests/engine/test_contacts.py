"""When devices asked: gathered, written together, and never twice for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.engine.reports.contacts import PIECE, Contacts
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane
from orchestrator.wire.report import State
from tests.support.builders import make_device
from tests.support.store import Away, open_sqlite


async def test_contacts_are_written_together_and_never_set_back(tmp_path: Path) -> None:
    store = Away(open_sqlite(tmp_path))
    try:
        fleet = [(make_device(f"d{number:05d}"), "") for number in range(PIECE + 1)]
        await store.transact(Lane.BULK, lambda tx: tx.enrol(fleet))
        await store.transact(Lane.BULK, lambda tx: tx.mark_online([State(v=1, dev="d00001", online=True)], 900.0))
        contacts = Contacts(store)
        for device, _ in fleet:
            for now in (100.0, 200.0):
                contacts.note(device.id, now)
        store.transactions = 0
        assert await contacts.flush() == len(fleet)
        assert store.transactions == 2
        seen = {item.id: item.seen_at for item in await store.read(lambda tx: tx.devices("", len(fleet)))}
        assert seen.pop("d00001") == 900.0
        assert set(seen.values()) == {200.0}
        assert await contacts.flush() == 0
        assert store.transactions == 2
    finally:
        await store.close()


async def test_what_cannot_be_written_is_kept(tmp_path: Path) -> None:
    store = Away(open_sqlite(tmp_path))
    try:
        await store.transact(Lane.BULK, lambda tx: tx.enrol([(make_device("d1"), ""), (make_device("d2"), "")]))
        contacts = Contacts(store)
        contacts.note("d1", 100.0)
        contacts.note("d2", 100.0)
        store.fails = 1
        with pytest.raises(UnavailableError):
            await contacts.flush()
        contacts.note("d2", 300.0)
        assert await contacts.flush() == 2
        seen = [item.seen_at for item in await store.read(lambda tx: tx.devices("", 5))]
        assert seen == [100.0, 300.0]
    finally:
        await store.close()
