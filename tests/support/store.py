"""Stores for tests: real SQLite files, and one that is away when the test says so.

Rules:
- `STORES` names every engine that the contract suite runs on; another one is one more entry.
- An engine is given a folder of its own and opens the same data again when it is called again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.adapters.store.migrate import migrate
from orchestrator.adapters.store.store import sqlite_engine
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Result, Store, Touched, Tx

OpenStore = Callable[[Path], SqlStore]


def open_sqlite(folder: Path) -> SqlStore:
    """Open `state.db` in a folder."""
    database = folder / "state.db"
    if not database.exists():
        database.write_bytes(_new_database())
    return open_store(f"sqlite:///{database}")


@cache
def _new_database() -> bytes:
    """Return a database that has seen every migration: to run them all takes longer than most tests."""
    with TemporaryDirectory() as folder:
        database = Path(folder) / "state.db"
        engine = sqlite_engine(f"sqlite:///{database}")
        migrate(engine)
        engine.dispose()
        return database.read_bytes()


STORES: dict[str, OpenStore] = {"sqlite": open_sqlite}


@asynccontextmanager
async def opened(folder: Path, open_: OpenStore = open_sqlite) -> AsyncIterator[SqlStore]:
    """Open a store and close it at the end."""
    store = open_(folder)
    try:
        yield store
    finally:
        await store.close()


async def write(store: Store, work: Any) -> Any:
    """Run a transaction as an operator's would be."""
    return await store.transact(Lane.OPERATOR, work)


class Away:
    """A store before a real one that fails as long as it is told to.

    Attributes:
        fails: transactions that still fail because the database is away.
        breaks: called before a transaction; what it raises is raised from it.
        transactions: transactions that were tried.
        reads: reads that were tried.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.fails = 0
        self.breaks: Callable[[], None] | None = None
        self.transactions = 0
        self.reads = 0

    async def transact(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        self.transactions += 1
        if self.fails:
            self.fails -= 1
            raise UnavailableError("the database is away", code="store")
        if self.breaks is not None:
            self.breaks()
        return await self._store.transact(lane, work)

    def watch(self, listener: Callable[[Touched], None]) -> None:
        self._store.watch(listener)

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        self.reads += 1
        if self.fails:
            self.fails -= 1
            raise UnavailableError("the database is away", code="store")
        return await self._store.read(work)

    async def close(self) -> None:
        await self._store.close()
