"""The store on SQL. Implements `ports.Store`.

Rules:
- SQLite runs in WAL mode with full sync: a transaction that returned survives the loss of power.
- One writer thread with lanes; reads run beside it on their own connections and see a snapshot.
- `open_store` migrates to the newest schema before anything else can look.
- What is answered from memory hears of each commit that touches it before anybody else hears of that commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, IntegrityError, ProgrammingError

from orchestrator.adapters.store import touched
from orchestrator.adapters.store.answers import SqlAnswers
from orchestrator.adapters.store.audit import SqlAuditLog
from orchestrator.adapters.store.catalogue import SqlCatalogue
from orchestrator.adapters.store.devices import SqlRegistry
from orchestrator.adapters.store.insight import SqlInsight
from orchestrator.adapters.store.keysets import SqlKeysets
from orchestrator.adapters.store.lanes import Writer
from orchestrator.adapters.store.lease import Lease, take
from orchestrator.adapters.store.migrate import migrate
from orchestrator.adapters.store.operators import SqlApprovals, SqlOperators
from orchestrator.adapters.store.outbox import SqlOutbox
from orchestrator.adapters.store.pruning import SqlPruning
from orchestrator.adapters.store.recent import Recent
from orchestrator.adapters.store.rollouts import SqlRollouts
from orchestrator.adapters.store.surroundings import SqlSurroundings
from orchestrator.adapters.store.times import SqlTimes
from orchestrator.adapters.store.updates import SqlUpdates
from orchestrator.adapters.store.webhooks import SqlWebhooks
from orchestrator.core.model import Update
from orchestrator.core.timing import Timing
from orchestrator.core.trust.audit import Head
from orchestrator.errors import OrchestratorError, RequestError, UnavailableError
from orchestrator.ports import Lane, Touched, Tx
from orchestrator.ports.acts import with_addition

Result = TypeVar("Result")
READERS = 2
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "busy_timeout = 10000",
    "cache_size = -65536",  # KiB
    "temp_store = MEMORY",
    "wal_autocheckpoint = 8000",  # pages
)
_OUR_FAULTS = (IntegrityError, ProgrammingError, DataError)
"""What the database says when it is well and we asked for the wrong thing."""


class SqlTx(
    SqlRegistry,
    SqlCatalogue,
    SqlRollouts,
    SqlUpdates,
    SqlOutbox,
    SqlKeysets,
    SqlAuditLog,
    SqlOperators,
    SqlApprovals,
    SqlSurroundings,
    SqlInsight,
    SqlPruning,
    SqlTimes,
    SqlAnswers,
    SqlWebhooks,
):
    """One open transaction. Implements `ports.Tx`."""

    def __init__(self, connection: Connection, recent: Recent | None = None, lease: Lease | None = None) -> None:
        SqlUpdates.__init__(self, connection, recent)
        self._lease = lease

    @property
    def connection(self) -> Connection:
        """What the transaction is open on."""
        return self._connection

    @property
    def touched(self) -> Collection[Update]:
        """The updates that were read or written."""
        return self._touched.values()


class SqlStore:
    """Durable state in one SQL database.

    Args:
        writing: engine with the one connection that writes.
        reading: engine for snapshots.
        lock: open file that keeps a second daemon away from the database, closed with the store.
        lease: the right to give out sequence numbers.

    Attributes:
        writes: how long transactions took from their begin to their commit, those that failed included, by lane.
    """

    def __init__(
        self, writing: Engine, reading: Engine, lock: IO[bytes] | None = None, lease: Lease | None = None
    ) -> None:
        self._writing = writing
        self._reading = reading
        self._lock = lock
        self._lease = lease
        self._writer = Writer("store-writer")
        self._recent = Recent()
        self._listeners: list[Callable[[Touched], None]] = []
        touched.arm(writing)
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self.writes = {lane: Timing() for lane in Lane}
        self.fault = ""
        """Why it cannot be written, "" if it can, as far as anybody tried."""

    async def transact(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        """See `ports.Store.transact`."""
        try:
            joined = with_addition(work)
            return await self._writer.submit(lane, lambda: self._write(lane, joined))
        except UnavailableError as error:
            self.fault = error.message
            raise

    async def probe(self) -> str:
        """Write what means nothing, and return why that cannot be done, "" if it can."""
        try:
            await self.transact(Lane.BULK, lambda tx: tx.touch())
        except UnavailableError as error:
            return error.message
        self.fault = ""
        return ""

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        """See `ports.Store.read`."""
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._readers, lambda: _run(self._reading, work))
        except RuntimeError:  # the threads are gone
            raise UnavailableError("the store is closed") from None
        return await reading

    def watch(self, listener: Callable[[Touched], None]) -> None:
        """See `ports.Watched.watch`."""
        self._listeners.append(listener)

    @property
    def busy_s(self) -> float:
        """How long the writer has been at its present piece of work, 0 while it has none."""
        return self._writer.busy_s

    def _write(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        changed: Touched | None = None

        def noting(tx: SqlTx) -> Result:
            nonlocal changed
            result = work(tx)
            changed = touched.take(tx.connection)
            return result

        began = time.monotonic()
        try:
            return _run(self._writing, noting, self._recent, self._lease)
        finally:
            self.writes[lane].note(time.monotonic() - began)
            if changed is not None:
                for listener in self._listeners:
                    listener(changed)

    async def pin(self, head: Head) -> None:
        """See `ports.Pinned.pin`."""
        if self._lease is not None:
            await self._writer.submit(Lane.OPERATOR, partial(self._lease.pin, head))

    async def close(self) -> None:
        """See `ports.Store.close`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._give_back()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()
        if self._lock is not None:
            self._lock.close()

    def _give_back(self) -> None:
        """Return the numbers that were not given out. Where that fails they become a gap, as after a crash."""
        if self._lease is not None:
            with contextlib.suppress(OrchestratorError):
                self._lease.give_back(_run(self._writing, lambda tx: tx.audit_head()))


def _run(
    engine: Engine, work: Callable[[SqlTx], Result], recent: Recent | None = None, lease: Lease | None = None
) -> Result:
    try:
        with engine.begin() as connection:
            tx = SqlTx(connection, recent, lease)
            result = work(tx)
    except _OUR_FAULTS:
        raise
    except DatabaseError as error:
        raise UnavailableError(f"the database failed: {error.orig}", code="store") from error
    if recent is not None:
        recent.commit(tx.touched)
    return result


def open_store(url: str, *, after_restore: bool = False, now: Callable[[], float] = time.time) -> SqlStore:
    """Open and migrate the database at an SQLAlchemy URL, such as `sqlite:////var/lib/ota/state.db`. Blocks.

    Args:
        url: where it is.
        after_restore: whether the operator knows that the database was restored from a backup.
        now: the clock, asked after a restore.

    Raises:
        RequestError: the URL is not one that this store can use, or the database is newer than this program.
        ConflictError: the database was restored, and nobody said so.
        UnavailableError: the database or its lease cannot be opened.
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
    lock = take_lock(Path(f"{parsed.database}.lock"))
    engine = sqlite_engine(url)
    try:
        migrate(engine)
        lease = take(engine, Path(f"{parsed.database}.lease"), after_restore=after_restore, now=now)
    except OrchestratorError:
        engine.dispose()
        lock.close()
        raise
    except DatabaseError as error:
        engine.dispose()
        lock.close()
        text = f"the database {parsed.database} cannot be opened: {error.orig}"
        raise UnavailableError(text, code="store") from error
    return SqlStore(engine, sqlite_engine(url, read_only=True), lock, lease)


def take_lock(path: Path) -> IO[bytes]:
    """Take the lock that says a daemon works on this database; the kernel gives it back however we end.

    Raises:
        UnavailableError: another one has it (`store_in_use`), or the file cannot be written.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {error.strerror}", code="store") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        text = f"another daemon works on the database beside {path}; stop it first"
        raise UnavailableError(text, code="store_in_use") from None
    return file


def sqlite_engine(url: str, *, read_only: bool = False) -> Engine:
    """Return an engine on SQLite with WAL, full sync and explicit transactions.

    The engine that writes has one connection: SQLite throws a connection's page cache away when another
    one wrote.
    """
    size = READERS if read_only else 1
    # Every transaction here ends by commit or rollback; nothing is left to reset.
    options: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_reset_on_return": None}
    engine = create_engine(url, connect_args={"check_same_thread": False}, **options)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        for pragma in (*_PRAGMAS, f"query_only = {int(read_only)}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
