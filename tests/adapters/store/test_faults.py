"""A database that is broken, locked, full or out of reach: what is said, and that nothing is half-written."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.adapters.store.migrate import migrate
from orchestrator.adapters.store.store import sqlite_engine
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.ports import Lane, Tx
from tests.support.builders import make_device
from tests.support.store import open_sqlite, opened


@pytest.mark.parametrize("url", ["", "state.db", "postgresql://localhost/ota", "sqlite://", "sqlite:///"])
def test_an_address_that_is_no_file_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match=r"store\.url"):
        open_store(url)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=f"{tmp_path}/none does not exist; create it"):
        open_store(f"sqlite:///{tmp_path}/none/state.db")


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(UnavailableError, match="cannot be opened: unable to open database file"):
        open_sqlite(tmp_path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"something else " * 1000)
    with pytest.raises(UnavailableError, match=r"state\.db cannot be opened: file is not a database") as caught:
        open_sqlite(tmp_path)
    assert caught.value.code == "store"
    assert (tmp_path / "state.db").read_bytes() == b"something else " * 1000


async def test_a_damaged_database_is_named_and_not_taken_for_empty(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.transact(Lane.OPERATOR, add_devices)
    path = tmp_path / "state.db"
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(UnavailableError, match="malformed"):
        open_sqlite(tmp_path)


async def test_damage_that_shows_later_is_an_unavailable_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.transact(Lane.OPERATOR, add_devices)
        with closing(sqlite3.connect(tmp_path / "state.db")) as other:
            other.execute("PRAGMA writable_schema = ON")
            other.execute("UPDATE sqlite_master SET rootpage = 1 WHERE name = 'devices'")
            other.commit()
            other.execute("CREATE TABLE changed (x)")
        with pytest.raises(UnavailableError, match="the database failed"):
            await store.read(lambda tx: tx.fleet_size())


def test_a_database_that_somebody_else_holds_is_named(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="database is locked"):
            open_store(f"sqlite:///{tmp_path}/state.db?timeout=0")
        other.execute("ROLLBACK")
    open_and_close(tmp_path)


async def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """`max_page_count` makes SQLite say what it says when the disk is full."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    engine = sqlite_engine(url)
    migrate(engine)
    pages = 0

    @event.listens_for(engine, "begin")
    def limit(connection: object) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or 2**30}")  # type: ignore[attr-defined]

    store = SqlStore(engine, engine)
    await store.transact(Lane.OPERATOR, lambda tx: tx.enrol([(make_device("first"), "")]))
    with closing(sqlite3.connect(tmp_path / "state.db")) as other:
        [(pages,)] = other.execute("PRAGMA page_count").fetchall()
    with pytest.raises(UnavailableError, match="disk is full") as caught:
        await store.transact(Lane.REPORTS, add_devices)
    assert caught.value.code == "store"
    assert await store.read(lambda tx: tx.fleet_size()) == 1
    pages = 0
    assert await store.transact(Lane.REPORTS, add_devices) == 500
    await store.close()
    async with opened(tmp_path) as again:
        assert await again.read(lambda tx: tx.fleet_size()) == 501


@pytest.mark.parametrize("read_only", [False, True])
def test_full_sync_and_foreign_keys_hold_on_every_connection(tmp_path: Path, read_only: bool) -> None:
    open_and_close(tmp_path)
    engine = sqlite_engine(f"sqlite:///{tmp_path / 'state.db'}", read_only=read_only)
    with engine.connect() as connection:
        for pragma, wanted in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("query_only", int(read_only)),
        ):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == wanted
    engine.dispose()


def add_devices(tx: Tx) -> int:
    return tx.enrol((make_device(f"d{at}", groups=["g" * 60]), "") for at in range(500))


def open_and_close(folder: Path) -> None:
    asyncio.run(open_sqlite(folder).close())
