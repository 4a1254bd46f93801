"""When devices last asked for something, gathered and written with others.

Rules:
- A poll writes nothing: its time is kept in memory and written once in `EVERY_S`, in pieces of the last lane.
- A graceful stop writes what is left. A daemon that is killed forgets at most what it gathered since the last time.
- What cannot be written now is written later; one time for each device is all that is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Store, Tx

EVERY_S = 60.0
PIECE = 2000
"""Devices that one transaction writes."""
_log = structlog.get_logger(__name__)


class Contacts:
    """Gathers when devices asked.

    Args:
        store: where it is written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, float] = {}

    def note(self, device_id: str, now: float) -> None:
        """Remember that a registered device asks now."""
        self._seen[device_id] = now

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Write what was gathered, for ever."""
        while True:
            await pause(EVERY_S)
            try:
                await self.flush()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)

    async def flush(self) -> int:
        """Write all that was gathered until now; returns how many devices that were.

        Raises:
            UnavailableError: the store cannot be written; what was gathered is kept.
        """
        gathered, self._seen = list(self._seen.items()), {}
        written = 0
        try:
            while written < len(gathered):
                piece = dict(gathered[written : written + PIECE])
                await self._store.transact(Lane.BULK, partial(_write, piece))
                written += len(piece)
        finally:
            self._seen = dict(gathered[written:]) | self._seen
        return written


def _write(piece: dict[str, float], tx: Tx) -> None:
    tx.mark_seen(piece)
