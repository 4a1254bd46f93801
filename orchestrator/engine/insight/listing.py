"""Lists that a person pages through: devices that a selector means, and the newest entries of the audit log.

Rules:
- An answer looks through so much at most, so that a selector that means almost nothing is answered in time all the
  same; where it has not come to the end it says so, and how to go on.
- Nothing is held while it looks: each piece is a snapshot of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.model import Device
from orchestrator.core.targeting import selector
from orchestrator.core.targeting.cohort import Sieve
from orchestrator.core.trust.audit import Entry, Head, digest
from orchestrator.ports import Store

PIECE = 2_000
MOST_DEVICES = 10_000
"""Devices that one answer looks through."""
MOST_ENTRIES = 20_000
"""Entries that one answer looks through."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Some devices of a list.

    Attributes:
        found: those that were found.
        after: the identifier after which it goes on, "" at the end.
        seen: how many were looked through.
    """

    found: Sequence[Device]
    after: str
    seen: int


async def devices(store: Store, text: str, after: str, limit: int, *, quarantined: bool = False) -> Devices:
    """Return the next devices that a selector means, in the order of their identifiers.

    Args:
        store: where they are.
        text: the selector, "" for all.
        after: the identifier to continue after.
        limit: how many at most.
        quarantined: whether only those in quarantine are wanted.

    Raises:
        SelectorError: the selector is not understood.
    """
    meant = selector.parse(text)
    sieve = Sieve(meant.words, quarantined=quarantined)
    piece = PIECE if text.strip() else limit + 1
    found: list[Device] = []
    seen = 0
    while True:
        start = after
        some = await store.read(lambda tx, start=start: tx.devices(start, piece, sieve))  # type: ignore[misc]
        for device in some:
            seen += 1
            if meant.matches(device):
                if len(found) == limit:
                    return Devices(found, found[-1].id, seen)
                found.append(device)
            after = device.id
        if len(some) < piece:
            return Devices(found, "", seen)
        if seen >= MOST_DEVICES:
            return Devices(found, after, seen)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are wanted; an empty text is no wish.

    Attributes:
        actor: exactly this account.
        action: beginning with this.
        object: with this in it.
    """

    actor: str = ""
    action: str = ""
    object: str = ""

    def matches(self, entry: Entry) -> bool:
        """Say whether an entry is wanted."""
        is_by = not self.actor or entry.actor == self.actor
        return is_by and entry.action.startswith(self.action) and self.object in entry.object


@dataclass(frozen=True, slots=True)
class Entries:
    """Some entries of the audit log.

    Attributes:
        found: those that were found, newest first.
        before: the number before which it goes on, 0 at the end.
        head: where the chain ends.
        seen: how many were looked through.
        broken: numbers of those among them that do not follow from the one before, or are not what was hashed.
    """

    found: Sequence[Entry]
    before: int
    head: Head
    seen: int
    broken: Sequence[int]


async def entries(store: Store, wanted: Wanted, before: int, limit: int) -> Entries:
    """Return the newest entries that are wanted, and whether all that were looked through form a chain.

    Args:
        store: where they are.
        wanted: which.
        before: the number to go on before, 0 for the newest.
        limit: how many at most.
    """
    head = await store.read(lambda tx: tx.audit_head())
    end = min(before - 1, head.n) if before else head.n
    found: list[Entry] = []
    broken: list[int] = []
    seen, later = 0, None
    while end > 0:
        size = min(end, PIECE if wanted != Wanted() else limit + 1)
        last = end
        some = await store.read(lambda tx, last=last, size=size: tx.audit_entries(last - size, size))  # type: ignore[misc]
        for entry in reversed([item for item in some if item.n <= last]):
            if wanted.matches(entry):
                if len(found) == limit:
                    return Entries(found, found[-1].n, head, seen, broken)
                found.append(entry)
            seen += 1
            broken += [entry.n] if not _is_whole(entry) or (later is not None and later.prev != entry.hash) else []
            later = entry
        end -= size
        if seen >= MOST_ENTRIES and end > 0:
            return Entries(found, end + 1, head, seen, broken)
    return Entries(found, 0, head, seen, broken)


def _is_whole(entry: Entry) -> bool:
    said = digest(entry.prev, entry.n, entry.at, entry.actor, entry.action, entry.object, entry.detail)
    return said == entry.hash
