"""The audit log as arithmetic: canonical entries, their chain, and what an examination of both finds.

Rules:
- An entry is hashed over its predecessor's hash and its own canonical JSON: who changes, drops or moves one
  must rewrite all that follow, and a checkpoint from before tells.
- Numbers rise by one. The only gap is before a `store.restored` entry that names it; a number is not used again.
- Texts are cleaned and capped on their way in, and what looks like a token or a signed address is removed.
- An examination never stops at the first fault, and says up to where a checkpoint vouches for what it saw.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 500
RESTORED = "store.restored"
SEALED = "deliveries.sealed"
STARTED, STOPPED = "daemon.started", "daemon.stopped"
NO_HASH = "0" * 64
_SECRET = re.compile(r"otad_[A-Za-z0-9_-]{8,}|[Bb]earer +\S+|https?://[^\s?]*\?\S+|[Xx]-[Aa]mz-[\w-]+=[^\s&]+")
_REMOVED = "(removed)"
_LARGEST = 2**53 - 1
"""No sequence number is larger; a database would not even take what a forger could name."""

SealedBetween = Callable[[int, int], Sequence[tuple[int, str]]]
"""Returns (seq, token hash) of the sealed deliveries with first <= seq <= last, in order of seq."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends.

    Attributes:
        n: number of the last entry, 0 if there is none.
        hash: its hash, 64 hexadecimal digits.
    """

    n: int
    hash: str


START = Head(0, NO_HASH)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Attributes:
        n: number, from 1.
        at: when, to the millisecond.
        actor: who did it.
        action: what was done, such as `rollout.moved`.
        object: to what.
        detail: canonical JSON object.
        prev: hash of the entry before.
        hash: hash of this entry.
    """

    n: int
    at: float
    actor: str
    action: str
    object: str
    detail: str
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement that the chain had this head.

    Attributes:
        n: number of the last entry.
        hash: its hash.
        at: when it was signed.
        seq: highest sequence number given out by then.
    """

    n: int
    hash: str
    at: float
    seq: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What an examination found.

    Attributes:
        entries: how many entries were seen.
        head: where their chain ends.
        checkpoints: how many checkpoints agree with the chain.
        vouched: number of the last entry that a checkpoint vouches for, 0 for none.
        batches: sealed batches that were compared with the deliveries.
        triggers: deliveries in them.
        faults: what is wrong, one sentence each.
        notes: what is right, but should be known.
    """

    entries: int
    head: Head
    checkpoints: int
    vouched: int
    batches: int
    triggers: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def canonical(value: Mapping[str, object]) -> str:
    """Return an object as JSON with sorted names and without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def clean(text: str) -> str:
    """Return a text as it may enter the log: one line, no secrets, at most 500 characters."""
    kept = _SECRET.sub(_REMOVED, text)[:MAX_TEXT]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in kept)


def follow(
    head: Head, at: float, actor: str, action: str, object_: str, detail: Mapping[str, object], *, n: int | None = None
) -> Entry:
    """Return the next entry of a chain; `n` only where numbers are left out on purpose."""
    number = head.n + 1 if n is None else n
    texts = (clean(actor), clean(action), clean(object_), canonical(_cleaned(detail)))
    at = round(float(at), 3)
    return Entry(number, at, *texts, head.hash, digest(head.hash, number, at, *texts))


def digest(prev: str, n: int, at: float, actor: str, action: str, object_: str, detail: str) -> str:
    """Return the hash of an entry."""
    words = {"n": n, "at": at, "actor": actor, "action": action, "object": object_, "detail": detail}
    return hashlib.sha256(f"{prev}\n{canonical(words)}".encode("utf-8", "surrogatepass")).hexdigest()


def batch_detail(lines: Sequence[tuple[int, str]]) -> dict[str, object]:
    """Return what the entry of a sealed batch says about it.

    Args:
        lines: (seq, token hash) of its deliveries in order of seq, at least one.
    """
    return {"first": lines[0][0], "last": lines[-1][0], "count": len(lines), "sha256": batch_hash(lines)}


def batch_hash(lines: Iterable[tuple[int, str]]) -> str:
    """Return SHA-256 in hex over one line `<seq> <token hash>` per delivery."""
    return hashlib.sha256("".join(f"{seq} {token_hash}\n" for seq, token_hash in lines).encode()).hexdigest()


def names_hash(names: Iterable[str]) -> str:
    """Return SHA-256 in hex over sorted names, one per line."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


class Examination:
    """Walks along a chain and compares it with its checkpoints and with the deliveries.

    Args:
        checkpoints: authentic checkpoints in the order in which they were kept.
        sealed: what the deliveries say.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], sealed: SealedBetween) -> None:
        self._sealed = sealed
        self._awaited: dict[int, list[Checkpoint]] = {}
        self._head = START
        self._entries = self._checkpoints = self._vouched = self._batches = self._triggers = 0
        self._gaps: list[tuple[int, int]] = []
        self._last_seq: int | None = None
        self._faults: list[str] = []
        self._notes: list[str] = []
        for before, item in zip([None, *checkpoints], checkpoints, strict=False):
            if before is not None and (item.n < before.n or item.seq < before.seq):
                self._faults.append(f"the checkpoint of entry {item.n} stands after the one of entry {before.n}")
            self._awaited.setdefault(item.n, []).append(item)

    def look(self, entry: Entry) -> None:
        """Take the next entry, in the order of numbers."""
        self._entries += 1
        sound = _is_sound(entry)
        if not sound:
            self._faults.append(f"entry {entry.n} was changed: its hash is not that of its words")
        if entry.n != self._head.n + 1:
            self._leap(entry)
        if entry.prev != self._head.hash:
            self._faults.append(f"entry {entry.n} does not follow entry {self._head.n}")
        for checkpoint in self._awaited.pop(entry.n, []):
            self._compare(entry, checkpoint)
        if sound and entry.action == SEALED:
            self._count(entry)
        if sound and entry.action == STARTED and self._last_seq is None:
            self._last_seq = _number(_object(entry.detail).get("seq"))  # older ones were sealed before the log
        self._head = Head(entry.n, entry.hash)

    def finish(self, head: Head | None = None, *, to_the_end: bool = False) -> Findings:
        """Say what was found.

        Args:
            head: the head that is kept beside the entries, if it is known.
            to_the_end: whether deliveries after the last sealed batch are strays as well; only on a snapshot.
        """
        for item in (item for waiting in self._awaited.values() for item in waiting):
            self._miss(item)
        if head is not None and head != self._head:
            self._faults.append(f"the log ends with entry {self._head.n}, but its head is entry {head.n}")
        if to_the_end and self._last_seq is not None:
            self._find_strays(self._last_seq + 1, 2**63 - 1)
        return Findings(
            self._entries,
            self._head,
            self._checkpoints,
            self._vouched,
            self._batches,
            self._triggers,
            tuple(self._faults),
            tuple(self._notes),
        )

    def _leap(self, entry: Entry) -> None:
        first, last = self._head.n + 1, entry.n - 1
        if entry.n <= self._head.n:
            self._faults.append(f"entry {entry.n} stands after entry {self._head.n}")
        elif entry.action == RESTORED and _object(entry.detail).get("after") == self._head.n:
            self._gaps.append((first, entry.n))
            self._notes.append(f"entries {first} to {last} were lost in the restore that entry {entry.n} tells of")
        else:
            self._faults.append(f"entries {first} to {last} are missing")

    def _compare(self, entry: Entry, checkpoint: Checkpoint) -> None:
        if entry.hash != checkpoint.hash:
            self._faults.append(f"entry {entry.n} is not the one that its checkpoint vouches for")
            return
        self._checkpoints += 1
        self._vouched = entry.n

    def _miss(self, checkpoint: Checkpoint) -> None:
        """A checkpoint without its entry is right only if a later one vouches for the restore that lost it."""
        if not any(first <= checkpoint.n < end <= self._vouched for first, end in self._gaps):
            self._faults.append(f"entry {checkpoint.n} is missing, and a checkpoint vouches for it")

    def _count(self, entry: Entry) -> None:
        said = _object(entry.detail)
        first, last = _number(said.get("first")), _number(said.get("last"))
        if first is None or last is None or first > last:
            self._faults.append(f"entry {entry.n} tells of no batch")
            return
        if self._last_seq is not None and first <= self._last_seq:
            self._faults.append(f"entry {entry.n} gives out the sequence number {first} again")
        elif self._last_seq is not None:
            self._find_strays(self._last_seq + 1, first - 1)
        lines = self._sealed(first, last)
        if len(lines) != said.get("count") or batch_hash(lines) != said.get("sha256"):
            self._faults.append(f"the deliveries {first} to {last} are not those that entry {entry.n} tells of")
        self._batches += 1
        self._triggers += len(lines)
        self._last_seq = max(last, self._last_seq or 0)

    def _find_strays(self, first: int, last: int) -> None:
        strays = self._sealed(first, last) if first <= last else []
        if strays:
            self._faults.append(f"{len(strays)} deliveries from sequence number {strays[0][0]} on are in no batch")


def _is_sound(entry: Entry) -> bool:
    """Say whether the hash is that of the words; what a forger left may be no words at all, or no number."""
    words = (entry.n, entry.at, entry.actor, entry.action, entry.object, entry.detail)
    try:
        return digest(entry.prev, *words) == entry.hash
    except (TypeError, ValueError):
        return False


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(name)): _cleaned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= _LARGEST else None


def _object(detail: str) -> dict[str, object]:
    try:
        found = json.loads(detail)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
