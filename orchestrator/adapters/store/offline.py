"""Reading a database file beside the daemon, or a copy of it: nothing is migrated, locked or changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError

from orchestrator.adapters.store.audit import SqlAuditLog
from orchestrator.adapters.store.store import SqlTx
from orchestrator.errors import NotFoundError, UnavailableError


@contextmanager
def audit_log_of(path: Path) -> Iterator[SqlAuditLog]:
    """Open the audit log of a database file, on one snapshot of it. Blocks.

    Raises:
        NotFoundError: there is no such file.
        UnavailableError: it holds no audit log, or cannot be read.
    """
    with _reading(path, "no audit log") as connection:
        yield SqlAuditLog(connection)


@contextmanager
def snapshot_of(path: Path) -> Iterator[SqlTx]:
    """Open one snapshot of a database file for looking at it; raises as `audit_log_of` does. Blocks."""
    with _reading(path, "no state") as connection:
        yield SqlTx(connection)


@contextmanager
def _reading(path: Path, lacking: str) -> Iterator[Connection]:
    if not path.is_file():
        raise NotFoundError(f"there is no database {path}")
    engine = create_engine(f"sqlite:///file:{quote(str(path.resolve()))}?mode=ro&uri=true")

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we begin the transaction ourselves

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    try:
        with engine.begin() as connection:
            yield connection
    except DatabaseError as error:
        raise UnavailableError(f"{path} holds {lacking} that can be read: {error.orig}", code="store") from None
    finally:
        engine.dispose()
