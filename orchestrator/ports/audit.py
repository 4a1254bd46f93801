"""The audit log, and who keeps its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.core.trust.audit import Entry, Head


class AuditLog(Protocol):
    """What happened, in a chain that is only ever added to."""

    def audit(self, actor: str, action: str, object_: str, detail: Mapping[str, object], now: float) -> Entry:
        """Add an entry in this transaction, after cleaning its texts; it stands or falls with what it tells of."""
        ...

    def audit_head(self) -> Head:
        """Return where the chain ends."""
        ...

    def audit_entries(self, after: int, limit: int) -> list[Entry]:
        """Return entries in order, from after number `after`."""
        ...

    def sealed_between(self, first: int, last: int, limit: int = 10_000) -> list[tuple[int, str]]:
        """Return (seq, token hash) of the sealed deliveries with first <= seq <= last, in order of seq."""
        ...


class Witness(Protocol):
    """Keeps checkpoints where the database cannot reach them. Blocking; called in a thread."""

    def keep(self, token: bytes) -> None:
        """Add a signed checkpoint; returns once it is durable. Raises UnavailableError."""
        ...


class Pinned(Protocol):
    """A store that remembers, outside its database, how far the audit log came."""

    async def pin(self, head: Head) -> None:
        """Remember this committed head. Raises ConflictError `fenced` if another daemon has taken over."""
        ...
