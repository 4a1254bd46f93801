"""Updates that were read or written lately, so that the next report about them needs no read.

Rules:
- Only the writer uses it, and only one daemon writes (the lock file says so); readers see the database.
- What a transaction writes counts after its commit; one that fails leaves nothing behind.
- Bounded: the oldest entries go first.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.model import Update

LIMIT = 100_000
_DIGITS = 4


class Recent:
    """Committed updates by number."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._updates: dict[int, Update] = {}
        self._batch_at = 0.0

    def batch_at(self, now: float) -> float:
        """Return the time under which a batch of reports is stored: now, but never that of a batch just before.

        It has so few digits that it is the same number as text.
        """
        at = round(now, _DIGITS)
        if 0 <= self._batch_at - at < 1:
            at = round(self._batch_at + 10**-_DIGITS, _DIGITS)
        self._batch_at = at
        return at

    def get(self, update_id: int) -> Update | None:
        """Return an update as it was last committed, None if it is not at hand."""
        return self._updates.get(update_id)

    def forget(self, update_ids: Iterable[int]) -> None:
        """Drop updates, so that they are read again."""
        for update_id in update_ids:
            self._updates.pop(update_id, None)

    def commit(self, updates: Iterable[Update]) -> None:
        """Take what a committed transaction read or wrote."""
        for update in updates:
            self._updates.pop(update.id, None)  # so that it is the youngest again
            self._updates[update.id] = update
        for _ in range(len(self._updates) - self._limit):
            del self._updates[next(iter(self._updates))]
