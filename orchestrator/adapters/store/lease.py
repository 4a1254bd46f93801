"""The lease on sequence numbers: a small file beside the database that a restored backup does not rewind.

Rules:
- No number is given out that the file does not cover; it is extended before, in blocks. A crash leaves a gap.
- The file also holds how far the audit log came. A database that is behind it, or of another history, was restored:
  it is opened only when the operator says so, and then numbers go on above all that can have been given out.
- Every opening raises the fence, in the database and in the file. Who finds another one there was overtaken by
  another daemon, and gives out nothing any more.
- The file is written before the transaction that it belongs to is committed: a crash in between leaves it the higher
  one, and the higher one wins. Only a restore is on disk in the database first, so that none is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from sqlalchemy import Connection, Engine, select

from orchestrator.adapters.durable import sync_folder
from orchestrator.adapters.store.audit import SqlAuditLog
from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import FENCE, SEQ, audit, counters
from orchestrator.core.trust.audit import RESTORED, START, Head, follow
from orchestrator.errors import ConflictError, UnavailableError

BLOCK = 1000
UNKNOWN = 1_000_000_000
"""Numbers that are taken as given out since a backup where nobody knows: more than there can have been, and so few
that devices, which accept steps of 2^40, still follow after a thousand restores."""
MAX_FILE_BYTES = 1024
REWOUND = "rewound"
UPDATES_ABOVE = "updates_above"
"""Counter: the highest sequence number of the oldest backup that was restored; there is none before a restore."""

_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds.

    Attributes:
        upto: highest sequence number that may be given out.
        fence: number of the opening that may do so.
        audit_n: number of the last audit entry that is known to be on disk.
        audit_hash: its hash.
    """

    upto: _Number
    fence: _Number
    audit_n: _Number
    audit_hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

    @property
    def head(self) -> Head:
        """The audit entry that is known to be on disk."""
        return Head(self.audit_n, self.audit_hash)


_DECODER = msgspec.json.Decoder(Record)


class Lease:
    """The right to give out sequence numbers. Used by the writer's thread alone.

    Args:
        path: the file.
        record: what it holds.
        given: highest number that the database has given out.
    """

    def __init__(self, path: Path, record: Record, given: int) -> None:
        self._path = path
        self._record = record
        self._given = given

    @property
    def fence(self) -> int:
        """Number of this opening."""
        return self._record.fence

    def cover(self, seq: int) -> None:
        """Make sure that the file covers a number, before it is given out.

        Raises:
            ConflictError: another daemon has taken over (`fenced`).
            UnavailableError: the file cannot be written.
        """
        if seq > self._record.upto:
            self._write(upto=seq + BLOCK, head=self._record.head)
        self._given = max(self._given, seq)

    def pin(self, head: Head) -> None:
        """Remember an audit entry whose transaction was committed; raises as `cover` does."""
        self._write(upto=self._record.upto, head=head)

    def give_back(self, head: Head) -> None:
        """Return what was not given out, at the end of a store; raises as `cover` does."""
        self._write(upto=self._given, head=head)

    def _write(self, upto: int, head: Head) -> None:
        there = read(self._path)
        if there is not None and there.fence != self.fence:
            raise overtaken()
        record = Record(upto, self.fence, head.n, head.hash)
        write(self._path, record)
        self._record = record


def overtaken() -> ConflictError:
    """Return the error of a daemon that is not the last one that opened the database."""
    text = "another daemon has opened this database since; this one gives out no numbers any more, so stop one of them"
    return ConflictError(text, code="fenced")


def take(engine: Engine, path: Path, *, after_restore: bool, now: Callable[[], float]) -> Lease:
    """Open the lease of a migrated database. Blocks.

    Args:
        engine: the database.
        path: file of the lease.
        after_restore: whether the operator knows that the database was restored.
        now: the clock, for the entry that tells of a restore.

    Raises:
        ConflictError: the database was restored and `after_restore` is not set (`restored`).
        UnavailableError: the file cannot be read or written.
    """
    record, fault = _found(path)
    with engine.begin() as connection:
        why = fault or _restored(connection, record)
        if why and not after_restore:
            text = f"{why}; if you did restore a backup, start once with `ota serve --after-restore`"
            raise ConflictError(text, code="restored")
        known = record or Record(0, 0, START.n, START.hash)
        given = _counter(connection, SEQ)
        upto = max(given, known.upto)
        if after_restore:
            upto += UNKNOWN
            _note_rewound(connection, given)
            _set(connection, UPDATES_ABOVE, upto)
            _tell(connection, known, why or "nothing seems to be missing; the operator says so", upto, now())
        fence = max(_counter(connection, FENCE), known.fence) + 1
        _set(connection, SEQ, upto)
        _set(connection, FENCE, fence)
        head = SqlAuditLog(connection).audit_head()
        taken = Record(upto, fence, head.n, head.hash)
        if not after_restore:
            write(path, taken)
    if after_restore:
        write(path, taken)  # not before the entry that tells of it is on disk: a crash in between asks again
    return Lease(path, taken, upto)


def read(path: Path) -> Record | None:
    """Return what the file holds, None if there is no file.

    Raises:
        UnavailableError: it cannot be read.
        ConflictError: it is damaged (`restored`).
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}", code="lease") from None
    try:
        return _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConflictError(f"{path} is damaged", code="restored") from None


def write(path: Path, record: Record) -> None:
    """Replace the file; it is whole and on disk when this returns.

    Raises:
        UnavailableError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {error.strerror}", code="lease") from None


def _found(path: Path) -> tuple[Record | None, str]:
    try:
        return read(path), ""
    except ConflictError as error:
        return None, error.message


def _restored(connection: Connection, record: Record | None) -> str:
    """Return what shows that this database is not the one that was closed last, "" if nothing does."""
    if record is None:
        # The first opening with a lease raises the fence from 0.
        return "the database was in use, but its lease file is not there" if _counter(connection, FENCE) else ""
    if not record.audit_n:
        return ""
    head = SqlAuditLog(connection).audit_head()
    if head.n < record.audit_n:
        return f"the database ends with audit entry {head.n}, but had entry {record.audit_n}: it is an older copy"
    kept = connection.scalar(select(audit.c.hash).where(audit.c.n == record.audit_n))
    if kept != record.audit_hash:
        return f"audit entry {record.audit_n} of the database is not the one that was there: it is another copy"
    return ""


def _tell(connection: Connection, known: Record, why: str, upto: int, now: float) -> None:
    log = SqlAuditLog(connection)
    head = log.audit_head()
    detail = {"after": head.n, "had": known.audit_n, "had_hash": known.audit_hash, "why": why, "seq_above": upto}
    n = max(head.n, known.audit_n) + 1
    log.append(follow(head, now, "operator", RESTORED, "store", detail, n=n))


def rewound(connection: Connection) -> int | None:
    """Return the highest number of the oldest backup that was restored, None if none ever was.

    A keyset that is taken now may be one that was taken before and lost: devices then hold marks that count from some
    number above this one.
    """
    found: int | None = connection.scalar(select(counters.c.value).where(counters.c.name == REWOUND))
    return found


def _note_rewound(connection: Connection, given: int) -> None:
    if rewound(connection) is None:  # a later backup holds the number of the earlier restore, which is the lower one
        connection.execute(insert(connection, counters).values(name=REWOUND, value=given))


def updates_above(connection: Connection) -> int:
    """Return the number that updates must be above: below it, devices may know attempts of updates that were lost."""
    return _counter(connection, UPDATES_ABOVE)


def _set(connection: Connection, name: str, value: int) -> None:
    statement = insert(connection, counters).values(name=name, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def _counter(connection: Connection, name: str) -> int:
    return int(connection.scalar(select(counters.c.value).where(counters.c.name == name)) or 0)
