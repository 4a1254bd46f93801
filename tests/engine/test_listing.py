"""Lists in pages: nothing is left out or told twice, no answer looks for ever, and a chain that is broken shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.targeting.selector import SelectorError
from orchestrator.core.trust.audit import Entry, Head
from orchestrator.engine.insight import listing
from orchestrator.engine.insight.listing import Wanted
from orchestrator.engine.rollouts import quarantine
from orchestrator.ports import Lane
from tests.support.factory import Plant


async def all_devices(it: Plant, where: str, limit: int) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = await listing.devices(it.store, where, after, limit)
        assert len(page.found) <= limit
        found += [item.id for item in page.found]
        after = page.after
        if not after:
            return found


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 12, 20])
@pytest.mark.parametrize("where", ["", 'id like "*1"', 'model == "m1"', 'id == "d011"'])
async def test_pages_make_the_whole_list(it: Plant, where: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PIECE", 5)
    await it.enrol(12)
    every = [f"d{at:03}" for at in range(12)]
    wanted = {"": every, 'id like "*1"': ["d001", "d011"], 'model == "m1"': every, 'id == "d011"': ["d011"]}
    assert await all_devices(it, where, limit) == wanted[where]


async def test_an_answer_looks_through_so_many_at_most(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PIECE", 3)
    monkeypatch.setattr(listing, "MOST_DEVICES", 6)
    await it.enrol(12)
    page = await listing.devices(it.store, 'id like "*9"', "", 5)
    assert (list(page.found), page.after, page.seen) == ([], "d005", 6)
    assert await all_devices(it, 'id like "*9"', 5) == ["d009"]


async def test_only_those_in_quarantine(it: Plant) -> None:
    await it.enrol(4)
    await it.write(lambda tx: quarantine.enter(tx, ["d002"], "smoke", it.clock(), actor="ann"))
    page = await listing.devices(it.store, "", "", 10, quarantined=True)
    assert [item.id for item in page.found] == ["d002"]


async def test_a_selector_that_is_none_shows_its_place(it: Plant) -> None:
    with pytest.raises(SelectorError, match=r"\^"):
        await listing.devices(it.store, "model = x", "", 10)


async def note(it: Plant, count: int) -> int:
    """Write so many entries; returns the number of the last one."""
    for at in range(count):
        who = "ann" if at % 2 else "ben"
        await it.write(lambda tx, who=who, at=at: tx.audit(who, "test.done", f"thing-{at}", {"at": at}, it.clock()))
    return (await it.store.read(lambda tx: tx.audit_head())).n


@pytest.mark.parametrize("limit", [1, 2, 5, 50])
async def test_entries_come_newest_first_and_once(it: Plant, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PIECE", 3)
    last = await note(it, 9)
    for wanted, numbers in (
        (Wanted(), list(range(last, 0, -1))),
        (Wanted(actor="ben", action="test."), list(range(last, last - 9, -2))),
        (Wanted(object="thing-3"), [last - 5]),
        (Wanted(action="nothing"), []),
    ):
        found: list[int] = []
        before = 0
        while True:
            page = await listing.entries(it.store, wanted, before, limit)
            found += [item.n for item in page.found]
            assert not page.broken
            before = page.before
            if not before:
                break
        assert found == numbers


async def test_entries_are_looked_for_in_time(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PIECE", 2)
    monkeypatch.setattr(listing, "MOST_ENTRIES", 4)
    last = await note(it, 9)
    page = await listing.entries(it.store, Wanted(action="nothing"), 0, 5)
    assert (list(page.found), page.before, page.seen) == ([], last - 3, 4)


async def test_an_entry_that_was_changed_shows(it: Plant) -> None:
    last = await note(it, 5)
    found = await it.store.read(lambda tx: tx.audit_entries(0, 50))
    changed = [replace(item, actor="eve") if item.n == last - 2 else item for item in found]
    page = await listing.entries(_Altered(it.store, changed), Wanted(), 0, 50)
    assert list(page.broken) == [last - 2]
    cut = [replace(item, prev="0" * 64) if item.n == last - 1 else item for item in found]
    page = await listing.entries(_Altered(it.store, cut), Wanted(), 0, 50)
    assert list(page.broken) == [last - 1, last - 2]


class _Altered:
    """A store whose audit log was changed behind our back."""

    def __init__(self, store: Any, entries: list[Entry]) -> None:
        self._store = store
        self._entries = entries

    async def read(self, work: Any) -> Any:
        return await self._store.read(lambda tx: work(_AlteredTx(tx.audit_head(), self._entries)))

    async def transact(self, lane: Lane, work: Any) -> Any:
        raise AssertionError("a list writes nothing")

    async def close(self) -> None:
        raise AssertionError("a list closes nothing")


class _AlteredTx:
    def __init__(self, head: Head, entries: list[Entry]) -> None:
        self._head = head
        self._entries = entries

    def audit_head(self) -> Head:
        return self._head

    def audit_entries(self, after: int, limit: int) -> list[Entry]:
        return [item for item in self._entries if item.n > after][:limit]
