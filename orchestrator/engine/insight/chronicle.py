"""What the fleet ran, day by day: counted now and then, the last count of a day stays.

Rules:
- A day is one of UTC. What no version has a name for is kept together.
- It is for people to look at; nothing decides by it, and a day that was missed stays missed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Ran, Store, Tx

EVERY_S = 3_600.0
DAY_S = 86_400
DAYS = 90
"""Days that are shown."""
MOST_KEPT = 50
"""Versions that are kept of a day, those with the most devices."""

View = dict[str, Any]
_log = structlog.get_logger(__name__)


class Chronicle:
    """Keeps what the fleet runs.

    Args:
        store: where it is counted and kept.
        now: the clock.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Count for ever."""
        while True:
            try:
                await self.keep()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)
            await pause(EVERY_S)

    async def keep(self) -> None:
        """Count, and keep it as what the fleet runs today."""
        now = self._now()
        found = await self._store.read(lambda tx: _count(tx, now))
        await self._store.transact(Lane.BULK, lambda tx: tx.keep_census(int(now // DAY_S), found))


def history(tx: Tx, now: float) -> list[View]:
    """Return what the fleet ran, oldest day first: `at`, and by version its `devices`, those with the most first."""
    days: dict[int, list[Ran]] = {}
    for ran in tx.past_censuses(int(now // DAY_S) - DAYS + 1):
        days.setdefault(ran.day, []).append(ran)
    return [{"at": float(day * DAY_S), "versions": _lines(days[day])} for day in sorted(days)]


def _lines(found: Sequence[Ran]) -> list[View]:
    order = sorted(found, key=lambda ran: (-ran.devices, -ran.rel, ran.version))
    return [{"version": ran.version, "rel": ran.rel, "devices": ran.devices} for ran in order]


def _count(tx: Tx, now: float) -> list[Ran]:
    day = int(now // DAY_S)
    counts: Counter[tuple[str, int]] = Counter()
    for kin in tx.census([now]):
        counts[kin.version, kin.rel] += kin.devices
    return [Ran(day, version, rel, devices) for (version, rel), devices in counts.most_common(MOST_KEPT)]
