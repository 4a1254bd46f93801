"""Sequence numbers are given out once, whatever happens to the database, to the file beside it, or between them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store import SqlStore, lease, open_store
from orchestrator.adapters.store.lease import BLOCK, UNKNOWN
from orchestrator.core.model import Update
from orchestrator.core.targeting.cohort import Member
from orchestrator.core.trust.audit import RESTORED, Head
from orchestrator.errors import ConflictError, UnavailableError
from orchestrator.ports import Lane, Tx
from tests.support.builders import make_device, make_draft, make_plan
from tests.support.factory import stock

NOW = 1_800_000_000.0


def open_(folder: Path, *, after_restore: bool = False) -> SqlStore:
    return open_store(f"sqlite:///{folder / 'state.db'}", after_restore=after_restore, now=lambda: NOW)


def unlocked(folder: Path) -> SqlStore:
    """Open beside a daemon that runs, as on a file system without locks."""
    (folder / "state.db.lock").unlink()
    return open_(folder)


@asynccontextmanager
async def opened(folder: Path, *, after_restore: bool = False) -> AsyncIterator[SqlStore]:
    store = open_(folder, after_restore=after_restore)
    try:
        yield store
    finally:
        await store.close()


async def write(store: SqlStore, work: Any) -> Any:
    return await store.transact(Lane.OPERATOR, work)


async def reserve(store: SqlStore, count: int = 1) -> list[int]:
    first = await write(store, lambda tx: tx.reserve(count))
    return list(range(first, first + count))


async def note(store: SqlStore, count: int = 1) -> Head:
    """Add entries to the audit log, and pin the last as the auditor does."""

    def add(tx: Tx) -> Head:
        for _ in range(count):
            tx.audit("ann", "rollout.moved", "spring", {}, NOW)
        return tx.audit_head()

    head: Head = await write(store, add)
    await store.pin(head)
    return head


def crash(folder: Path, into: Path) -> None:
    """Copy what a crash at this moment would leave on disk."""
    into.mkdir()
    with (
        closing(sqlite3.connect(folder / "state.db")) as source,
        closing(sqlite3.connect(into / "state.db")) as target,
    ):
        source.backup(target)
    shutil.copy(folder / "state.db.lease", into)


def back_up(folder: Path) -> None:
    with (
        closing(sqlite3.connect(folder / "state.db")) as source,
        closing(sqlite3.connect(folder / "backup.db")) as target,
    ):
        source.backup(target)


def restore(folder: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (folder / f"state.db{suffix}").unlink(missing_ok=True)
    shutil.copy(folder / "backup.db", folder / "state.db")


def die(*_: object) -> None:
    """Stand in for a write that the process did not live to see."""
    raise UnavailableError("the process died")


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "state.db.lease").read_bytes())
    return found


async def test_numbers_are_leased_in_blocks(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert record(tmp_path)["upto"] == 0
        assert await reserve(store) == [1]
        assert record(tmp_path)["upto"] == 1 + BLOCK
        before = (tmp_path / "state.db.lease").stat().st_ino
        assert await reserve(store, BLOCK) == list(range(2, BLOCK + 2))
        assert (tmp_path / "state.db.lease").stat().st_ino == before, "the file is not written within a block"
        await reserve(store)
        assert record(tmp_path)["upto"] == 2 * BLOCK + 2


async def test_a_clean_stop_leaves_no_gap_and_a_crash_leaves_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await reserve(store, 7) == [1, 2, 3, 4, 5, 6, 7]
        crash(tmp_path, tmp_path / "crashed")
    async with opened(tmp_path) as store:
        assert await reserve(store) == [8]
    async with opened(tmp_path / "crashed") as store:
        assert await reserve(store) == [7 + BLOCK + 1]


async def test_a_transaction_that_fails_gives_nothing_out(tmp_path: Path) -> None:
    """The file may be ahead of the database, never behind."""

    def fail(tx: Tx) -> None:
        tx.reserve(5000)
        raise RuntimeError("the process died before the commit")

    async with opened(tmp_path) as store:
        with pytest.raises(RuntimeError):
            await write(store, fail)
        assert record(tmp_path)["upto"] == 5000 + BLOCK
        crash(tmp_path, tmp_path / "crashed")
        assert await reserve(store) == [1]
    async with opened(tmp_path / "crashed") as store:
        assert await reserve(store) == [5000 + BLOCK + 1]


async def test_nothing_is_given_out_that_the_file_cannot_cover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            with pytest.raises(UnavailableError, match=r"state\.db\.lease cannot be written: No space left") as caught:
                await reserve(store)
            assert caught.value.code == "lease"
            assert record(tmp_path)["upto"] == 0
        assert await reserve(store) == [1]
        assert record(tmp_path)["upto"] == 1 + BLOCK


async def test_a_crash_between_the_two_writes_of_an_opening_is_no_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written first; the database still has the old fence then."""
    async with opened(tmp_path) as store:
        await reserve(store, 3)
        await note(store)

    fence = record(tmp_path)["fence"]
    real = lease.write

    def write_and_die(path: Path, record: lease.Record) -> None:
        real(path, record)
        die()

    with monkeypatch.context() as patch:
        patch.setattr(lease, "write", write_and_die)
        with pytest.raises(UnavailableError, match="died"):
            open_(tmp_path)
    assert record(tmp_path)["fence"] == fence + 1
    async with opened(tmp_path) as store:
        assert record(tmp_path)["fence"] == fence + 2
        assert await reserve(store) == [4]


async def test_a_crash_in_the_very_first_opening_is_no_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lease, "write", die)
        with pytest.raises(UnavailableError, match="died"):
            open_(tmp_path)
    async with opened(tmp_path) as store:
        assert await reserve(store) == [1]


async def test_a_database_from_before_the_lease_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await reserve(store, 41)
    (tmp_path / "state.db.lease").unlink()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("DELETE FROM counters WHERE name = 'fence'")
        database.commit()
    async with opened(tmp_path) as store:
        assert await reserve(store) == [42]


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db.lease").mkdir()
    with pytest.raises(UnavailableError, match=r"state\.db\.lease cannot be read: Is a directory") as caught:
        open_(tmp_path)
    assert caught.value.code == "lease"


# Restores


async def in_use(folder: Path) -> list[int]:
    """Use a store, back it up, use it further; returns every number given out."""
    async with opened(folder) as store:
        given = await reserve(store, 10)
        await note(store, 5)
        back_up(folder)
        given += await reserve(store, 2500)
        await note(store, 5)
    return given


async def test_an_older_copy_is_refused_until_the_operator_says_so(tmp_path: Path) -> None:
    given = await in_use(tmp_path)
    restore(tmp_path)
    for _ in range(2):
        with pytest.raises(ConflictError, match="ends with audit entry 5, but had entry 10.*--after-restore") as caught:
            open_(tmp_path)
        assert caught.value.code == "restored"
    async with opened(tmp_path, after_restore=True) as store:
        assert min(await reserve(store, 10)) > max(given)
        [told] = await store.read(lambda tx: tx.audit_entries(5, 10))
        assert (told.n, told.action, told.actor, told.at) == (11, RESTORED, "operator", NOW)
        detail = json.loads(told.detail)
        assert (detail["after"], detail["had"], detail["seq_above"]) == (5, 10, max(given) + UNKNOWN)
    async with opened(tmp_path) as store:  # once is enough
        assert await reserve(store) == [max(given) + UNKNOWN + 11]
        assert len(await store.read(lambda tx: tx.audit_entries(5, 10))) == 1


async def test_another_history_is_refused_as_well(tmp_path: Path) -> None:
    """A copy that was worked with has entries enough, but other ones."""
    given = await in_use(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    restore(tmp_path / "copy")
    async with opened(tmp_path / "copy", after_restore=True) as store:
        await note(store, 20)
    shutil.copy(tmp_path / "state.db.lease", tmp_path / "copy")
    with pytest.raises(ConflictError, match="entry 10 of the database is not the one that was there"):
        open_(tmp_path / "copy")
    async with opened(tmp_path / "copy", after_restore=True) as store:
        assert (await reserve(store))[0] > max(given)


@pytest.mark.parametrize("left", [None, b"", b"{}", b"[1]", b'{"upto":-1,"fence":1,"audit_n":0,"audit_hash":""}'])
async def test_a_lease_that_is_lost_or_damaged_is_a_restore(tmp_path: Path, left: bytes | None) -> None:
    given = await in_use(tmp_path)
    path = tmp_path / "state.db.lease"
    path.unlink() if left is None else path.write_bytes(left)
    with pytest.raises(ConflictError, match=r"(is not there|is damaged); if you did restore"):
        open_(tmp_path)
    async with opened(tmp_path, after_restore=True) as store:
        assert (await reserve(store))[0] == max(given) + UNKNOWN + 1


async def test_a_whole_host_that_was_restored_goes_on_above_when_the_operator_says_so(tmp_path: Path) -> None:
    """Nothing on it can show that: database and lease fit each other."""
    async with opened(tmp_path) as store:
        await reserve(store, 10)
    async with opened(tmp_path, after_restore=True) as store:
        assert await reserve(store) == [10 + UNKNOWN + 1]
        [told] = await store.read(lambda tx: tx.audit_entries(0, 10))
        assert "nothing seems to be missing" in told.detail


async def test_a_crash_in_the_midst_of_accepting_a_restore_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await in_use(tmp_path)
    restore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "write", die)
        with pytest.raises(UnavailableError, match="died"):
            open_(tmp_path, after_restore=True)
    with pytest.raises(ConflictError, match="another copy"):
        open_(tmp_path)
    async with opened(tmp_path, after_restore=True) as store:
        assert (await reserve(store))[0] > max(given)
        told = await store.read(lambda tx: tx.audit_entries(5, 10))
        assert [(item.n, item.action) for item in told] == [(11, RESTORED), (12, RESTORED)]


async def test_a_database_that_is_gone_beside_its_lease_is_a_restore(tmp_path: Path) -> None:
    await in_use(tmp_path)
    (tmp_path / "state.db").unlink()
    with pytest.raises(ConflictError, match="ends with audit entry 0, but had entry 10"):
        open_(tmp_path)


async def open_one(store: SqlStore, device: str, rel: int = 2) -> Update:
    """Take one device into a rollout of its own."""

    def work(tx: Tx) -> Update:
        name = f"r-{device}"
        if tx.release(f"radio-{rel}.0.0") is None:
            stock(tx, rel)
        tx.enrol([(make_device(device), "")])
        rollout = tx.add_rollout(make_draft(make_plan(name=name, release=f"radio-{rel}.0.0")), b"s")
        [update] = tx.open_updates(rollout, [Member(1, device, "m1")], rel, NOW)
        return update

    return await store.transact(Lane.OPERATOR, work)


async def test_updates_after_a_restore_have_numbers_that_no_device_knows(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await open_one(store, "d0")
    shutil.copytree(tmp_path, tmp_path / "copy")
    async with opened(tmp_path) as store:
        lost = [await open_one(store, f"d{at}") for at in range(1, 4)]
    shutil.copy(tmp_path / "state.db.lease", tmp_path / "copy")
    async with opened(tmp_path / "copy", after_restore=True) as store:
        first, second = await open_one(store, "d1"), await open_one(store, "d2")
        assert first.id > UNKNOWN > max(item.id for item in lost)
        assert second.id == first.id + 1
        assert (await store.read(lambda tx: tx.updates([first.id])))[first.id] == first
    async with opened(tmp_path / "copy", after_restore=True) as store:  # once more: above all of this as well
        assert (await open_one(store, "d3")).id > second.id + UNKNOWN - 10


# Two daemons


async def test_a_second_daemon_on_the_database_stops_the_first(tmp_path: Path) -> None:
    first = open_(tmp_path)
    given = await reserve(first, 5)
    second = unlocked(tmp_path)
    for work in (lambda tx: tx.reserve(1), lambda tx: tx.seal([object()])):
        with pytest.raises(ConflictError, match="another daemon has opened this database") as caught:
            await write(first, work)
        assert caught.value.code == "fenced"
    with pytest.raises(ConflictError, match="another daemon"):
        await first.pin(Head(9, "0" * 64))
    await first.close()
    assert min(await reserve(second, 5)) > max(given)
    fence = record(tmp_path)["fence"]
    await second.close()
    assert record(tmp_path)["fence"] == fence == 2


async def test_copies_that_share_a_lease_file_give_out_no_number_twice(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    first = open_(one)
    given = await reserve(first, 5)
    two.mkdir()
    with (
        closing(sqlite3.connect(one / "state.db")) as source,
        closing(sqlite3.connect(two / "state.db")) as target,
    ):
        source.backup(target)
    (two / "state.db.lease").symlink_to(one / "state.db.lease")
    (one / "state.db.lease.new").unlink(missing_ok=True)
    second = open_(two)
    shutil.copy(two / "state.db.lease", one / "state.db.lease")  # a file that both of them see
    with pytest.raises(ConflictError, match="another daemon"):
        for _ in range(BLOCK + 2):
            given += await reserve(first)
    assert not set(given) & set(await reserve(second, BLOCK * 2))
    await first.close()
    await second.close()


STEPS = ["reserve", "open", "crash", "restart", "backup", "restore"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 1500))))
def test_no_number_twice_whatever_happens(tmp_path_factory: pytest.TempPathFactory, steps: Iterable[Any]) -> None:
    """Reservations, second daemons, crashes, clean stops and restores in any order."""
    asyncio.run(_live(tmp_path_factory.mktemp("lease"), steps))


async def _live(folder: Path, steps: Iterable[tuple[str, int]]) -> None:
    stores = [open_(folder)]
    back_up(folder)
    try:
        given = await _run(folder, stores, steps)
    finally:
        for store in stores:
            await store.close()
    assert len(set(given)) == len(given)


async def _run(folder: Path, stores: list[SqlStore], steps: Iterable[tuple[str, int]]) -> list[int]:
    given: list[int] = []
    for at, (step, count) in enumerate(steps):
        if step == "reserve":
            store = stores[count % len(stores)]
            try:
                given += await reserve(store, count)
            except ConflictError:
                assert store is not stores[-1], "who opened the database last is never refused"
        elif step == "open":
            stores.append(unlocked(folder))
        elif step == "backup":
            back_up(folder)
        else:
            await _stop(folder, stores, step)
            stores[:] = [await _open_again(folder, NOW + at)]
    return given


async def _stop(folder: Path, stores: list[SqlStore], step: str) -> None:
    """Stop all stores; the file stays as it was before if they crash."""
    before = (folder / "state.db.lease").read_bytes()
    for store in stores:
        await store.close()
    if step == "crash":
        (folder / "state.db.lease").write_bytes(before)
    if step == "restore":
        restore(folder)


async def _open_again(folder: Path, clock: float) -> SqlStore:
    url = f"sqlite:///{folder / 'state.db'}"
    try:
        store = open_store(url, now=lambda: clock)
    except ConflictError:
        store = open_store(url, after_restore=True, now=lambda: clock)
    await note(store)
    return store


async def count_in(store: SqlStore, epoch: int, count: int) -> list[int]:
    """Return numbers as the tokens of an epoch say them."""
    first, base = await write(store, lambda tx: (tx.reserve(count), tx.base(epoch)))
    return [number - base for number in range(first, first + count)]


async def test_a_keyset_that_a_backup_did_not_know_goes_on_counting_above_what_devices_saw(tmp_path: Path) -> None:
    """Devices hold it, with the marks that they had reached: it is submitted again and must not count from 1."""
    async with opened(tmp_path) as store:
        await reserve(store, 5)
        back_up(tmp_path)
        await reserve(store, 5)
        await write(store, lambda tx: tx.add_keyset(2, b"two", NOW))
        seen = await count_in(store, 2, 20)
        await note(store)
    assert seen[0] == 1
    for times in range(1, 4):
        restore(tmp_path)
        async with opened(tmp_path, after_restore=True) as store:
            await write(store, lambda tx: tx.add_keyset(2, b"two", NOW))
            again = await count_in(store, 2, 30)
            await note(store)
        assert seen[-1] < again[0] <= (times + 1) * UNKNOWN
        seen = again


async def test_a_keyset_after_a_restore_counts_above_one_that_was_lost_in_another(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await reserve(store, 5)
        back_up(tmp_path)
        await note(store)
    restore(tmp_path)
    async with opened(tmp_path, after_restore=True) as store:
        await reserve(store, 5)
        back_up(tmp_path)
        await write(store, lambda tx: tx.add_keyset(2, b"two", NOW))
        seen = await count_in(store, 2, 20)
        await note(store)
    restore(tmp_path)
    async with opened(tmp_path, after_restore=True) as store:
        await write(store, lambda tx: tx.add_keyset(2, b"two", NOW))
        assert (await count_in(store, 2, 1))[0] > seen[-1]


async def test_without_a_restore_a_keyset_counts_from_the_beginning(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await reserve(store, 5)
        await write(store, lambda tx: tx.add_keyset(2, b"two", NOW))
        assert await count_in(store, 2, 2) == [1, 2]
