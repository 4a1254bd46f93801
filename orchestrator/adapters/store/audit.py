"""The audit log. Implements `ports.AuditLog`."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, insert, select, update

from orchestrator.adapters.store.schema import audit, audit_head, deliveries
from orchestrator.core.trust.audit import START, Entry, Head, follow

_FIELDS = tuple(Entry.__dataclass_fields__)
_ONLY = 1
# Made once: an entry is part of many a short transaction.
_ADD = insert(audit)
_HEAD = select(audit_head.c.n, audit_head.c.hash).where(audit_head.c.id == _ONLY)
_MOVE = update(audit_head).where(audit_head.c.id == _ONLY).values(n=bindparam("to_n"), hash=bindparam("to_hash"))
_SEALED = (
    select(deliveries.c.seq, deliveries.c.token_hash)
    .where(deliveries.c.seq.between(bindparam("first"), bindparam("last")))
    .order_by(deliveries.c.seq)
    .limit(bindparam("most"))
)


class SqlAuditLog:
    """The audit log in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def audit(self, actor: str, action: str, object_: str, detail: Mapping[str, object], now: float) -> Entry:
        """See `ports.AuditLog.audit`."""
        return self.append(follow(self.audit_head(), now, actor, action, object_, detail))

    def append(self, entry: Entry) -> Entry:
        """Add an entry that was made to follow the head."""
        self._connection.execute(_ADD, {name: getattr(entry, name) for name in _FIELDS})
        if not self._connection.execute(_MOVE, {"to_n": entry.n, "to_hash": entry.hash}).rowcount:
            self._connection.execute(insert(audit_head), {"id": _ONLY, "n": entry.n, "hash": entry.hash})
        return entry

    def audit_head(self) -> Head:
        """See `ports.AuditLog.audit_head`."""
        row = self._connection.execute(_HEAD).one_or_none()
        return START if row is None else Head(row.n, row.hash)

    def audit_entries(self, after: int, limit: int) -> list[Entry]:
        """See `ports.AuditLog.audit_entries`."""
        query = select(audit).where(audit.c.n > after).order_by(audit.c.n).limit(limit)
        return [Entry(*(getattr(row, name) for name in _FIELDS)) for row in self._connection.execute(query)]

    def sealed_between(self, first: int, last: int, limit: int = 10_000) -> list[tuple[int, str]]:
        """See `ports.AuditLog.sealed_between`."""
        found = self._connection.execute(_SEALED, {"first": first, "last": last, "most": limit})
        return [(seq, token_hash) for seq, token_hash in found]
