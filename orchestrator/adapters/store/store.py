"""The store on SQL. Implements `ports.Store`.

Rules:
- SQLite runs in WAL mode with full sync: a transaction that returned survives the loss of power.
- One writer thread with lanes; reads run beside it on their own connections and see a snapshot.
- `open_store` migrates to the newest schema before anything else can look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from orchestrator.adapters.store.catalogue import SqlCatalogue
from orchestrator.adapters.store.devices import SqlRegistry
from orchestrator.adapters.store.lanes import Writer
from orchestrator.adapters.store.migrate import migrate
from orchestrator.adapters.store.outbox import SqlOutbox
from orchestrator.adapters.store.rollouts import SqlRollouts
from orchestrator.adapters.store.updates import SqlUpdates
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.ports import Lane, Tx

Result = TypeVar("Result")


class SqlTx(SqlRegistry, SqlCatalogue, SqlRollouts, SqlUpdates, SqlOutbox):
    """One open transaction. Implements `ports.Tx`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection


class SqlStore:
    """Durable state in one SQL database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = Writer("store-writer")
        self._readers = ThreadPoolExecutor(2, "store-reader")

    async def transact(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        """See `ports.Store.transact`."""
        return await self._writer.submit(lane, lambda: self._run(work, write=True))

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        """See `ports.Store.read`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: self._run(work, write=False))

    async def close(self) -> None:
        """See `ports.Store.close`."""
        await asyncio.to_thread(self._close)

    def _run(self, work: Callable[[Tx], Result], *, write: bool) -> Result:
        try:
            with self._engine.connect() as connection:
                connection.info["write"] = write
                with connection.begin():
                    return work(SqlTx(connection))
        except OperationalError as error:
            raise UnavailableError(f"the database failed: {error.orig}", code="store") from error

    def _close(self) -> None:
        self._writer.close()
        self._readers.shutdown()
        self._engine.dispose()


def open_store(url: str) -> SqlStore:
    """Open and migrate the database at an SQLAlchemy URL, such as `sqlite:////var/lib/ota/state.db`. Blocks.

    Raises:
        RequestError: the URL is not one that this store can use.
        UnavailableError: the database cannot be opened.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise RequestError("store.url is not a database URL, such as sqlite:////var/lib/ota/state.db") from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise RequestError("store.url must be sqlite:///PATH", code="store_url")
    folder = Path(parsed.database).parent
    if not folder.is_dir():
        raise UnavailableError(f"store.url: the folder {folder} does not exist; create it", code="store")
    engine = sqlite_engine(url)
    try:
        migrate(engine)
    except OperationalError as error:
        raise UnavailableError(
            f"the database {parsed.database} cannot be opened: {error.orig}", code="store"
        ) from error
    return SqlStore(engine)


def sqlite_engine(url: str) -> Engine:
    """Return an engine on SQLite with WAL, full sync and explicit transactions."""
    engine = create_engine(url, pool_size=4, max_overflow=0, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 10000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        write = connection.info.get("write", True)
        connection.exec_driver_sql("PRAGMA query_only = " + ("OFF" if write else "ON"))
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
