"""What polls are answered from without a look at the store: whose token it is, and who has nothing.

Rules:
- What is held here was read from the store and is dropped by the commit that changes it, before whoever made the change
  hears that it is done. So an answer from here is one that the store could have given at the same moment.
- What was read while a commit changed it is not kept; what is not kept is read again.
- That a device has nothing is kept only where nothing but a commit can bring it something: no clock, no hour, no stop.
- Both are read together: after a restart each device costs one read.
- When a device was last seen is not followed here.
- Bounded: beyond `MOST` devices all is forgotten and read again.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from orchestrator.core.model import Device
from orchestrator.engine.offers import polling
from orchestrator.ports import Store, Touched, Tx, Watched

MOST = 1_000_000
"""Devices that are held."""
_OVERLAP = 256
"""Commits that a read may overlap with; it is not kept where there were more."""


class Known:
    """Devices by their token and by their name, and those that have nothing.

    Args:
        store: where they are read.
        watched: tells what commits changed.
        most: how many devices are held.
    """

    def __init__(self, store: Store, watched: Watched, most: int = MOST) -> None:
        self._store = store
        self._most = most
        self._lock = Lock()
        self._by_token: dict[bytes, Device] = {}
        self._by_name: dict[str, Device] = {}
        self._tokens: dict[str, bytes] = {}
        self._idle: set[str] = set()
        self._commits = 0
        self._last: deque[Touched] = deque(maxlen=_OVERLAP)
        watched.watch(self._forget)

    async def of_token(self, token_hash: str) -> Device | None:
        """Return the device whose token has this hash."""
        key = bytes.fromhex(token_hash)
        found = self._by_token.get(key)
        if found is not None:
            return found
        mark = self._commits
        read, idle = await self._store.read(lambda tx: _look(tx, token_hash))
        if read is None:
            return None
        device = _shared(read)
        self._keep(device, mark, key)
        if idle:
            self.note_idle(device.id, mark)
        return device

    async def named(self, device_id: str) -> Device | None:
        """Return a device by its identifier."""
        found = self._by_name.get(device_id)
        if found is not None:
            return found
        mark = self._commits
        read = await self._store.read(lambda tx: tx.device(device_id))
        if read is None:
            return None
        device = _shared(read)
        self._keep(device, mark, None)
        return device

    def is_idle(self, device_id: str) -> bool:
        """Say whether a poll of a device brings nothing, for sure."""
        return device_id in self._idle

    def mark(self) -> int:
        """Return what `note_idle` asks for; take it before the store is read."""
        return self._commits

    def note_idle(self, device_id: str, mark: int) -> None:
        """Keep that a device has nothing, as was read after `mark`, unless a commit changed that meanwhile."""
        with self._lock:
            if self._is_sure(mark, lambda item: item.everyone or device_id in item.due):
                if len(self._idle) >= self._most:
                    self._idle.clear()
                self._idle.add(device_id)

    def _keep(self, device: Device, mark: int, key: bytes | None) -> None:
        with self._lock:
            if not self._is_sure(mark, lambda item: device.id in item.devices):
                return
            if len(self._by_token) + len(self._by_name) >= self._most:
                self._by_token.clear()
                self._by_name.clear()
                self._tokens.clear()
            if key is None:
                self._by_name[device.id] = device
            else:
                self._by_token[key] = device
                self._tokens[device.id] = key

    def _is_sure(self, mark: int, changes: Callable[[Touched], bool]) -> bool:
        """Say whether no commit since a mark was one that changes what was read."""
        since = self._commits - mark
        if since > len(self._last):
            return False
        return not any(changes(self._last[-place]) for place in range(1, since + 1))

    def _forget(self, touched: Touched) -> None:
        """Drop what a commit changed; the writer's thread calls it."""
        with self._lock:
            self._commits += 1
            self._last.append(touched)
            if touched.everyone:
                self._idle.clear()
            self._idle -= touched.due
            for device_id in touched.devices:
                self._by_name.pop(device_id, None)
                key = self._tokens.pop(device_id, None)
                if key is not None:
                    self._by_token.pop(key, None)


def _look(tx: Tx, token_hash: str) -> tuple[Device | None, bool]:
    device = tx.device_by_token(token_hash)
    return device, device is not None and polling.is_idle(tx, device)


def _shared(device: Device) -> Device:
    """Return a device whose words are those of its like: a fleet has few models and versions, and many devices."""
    return replace(
        device,
        model=sys.intern(device.model),
        version=sys.intern(device.version),
        revision=sys.intern(device.revision),
        site=sys.intern(device.site),
        time_zone=sys.intern(device.time_zone),
        dialect=sys.intern(device.dialect),
    )
