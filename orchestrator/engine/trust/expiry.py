"""The watch over what expires: certificates and keys are looked at now and then, and told of in good time.

Rules:
- What to tell, and when, is decided by `core.trust.expiry`.
- A source that cannot be asked is told of once, not at every look, and keeps what it last said; the others are
  asked all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from orchestrator.core.trust import expiry as rules
from orchestrator.core.trust.expiry import Expiry, Notice, Warned
from orchestrator.errors import OrchestratorError, UnavailableError

Source = Callable[[], Sequence[Expiry]]
"""Says what expires when; may block, and may raise an `OrchestratorError`."""

_log = structlog.get_logger(__name__)


class ExpiryWatch:
    """Knows what expires.

    Args:
        sources: who is asked, by a name for the case that it cannot answer.
        now: the clock.
        note: keeps what was told, for others.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        now: Callable[[], float],
        note: Callable[[Notice], Awaitable[None]] | None = None,
    ) -> None:
        self._sources = sources
        self._now = now
        self._note = note
        self._found: dict[str, Sequence[Expiry]] = {}
        self._faults: dict[str, str] = {}
        self._told: dict[str, Warned] = {}

    async def run(self, every_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Look for ever, with pauses of `every_s` between."""
        while True:
            await self.look_once()
            await sleep(every_s)

    async def look_once(self) -> None:
        """Ask every source, and log what has to be told."""
        for name in self._sources:
            await self._ask(name)
        await self._tell()

    async def look_at(self, name: str) -> None:
        """Ask one source, because what it says has changed."""
        await self._ask(name)
        await self._tell()

    async def _ask(self, name: str) -> None:
        try:
            self._found[name] = await asyncio.to_thread(self._sources[name])
        except OrchestratorError as error:
            self._note_fault(name, error)
        else:
            self._faults.pop(name, None)

    async def _tell(self) -> None:
        now = self._now()
        notices, self._told = rules.judge(self.found, self._told, now)
        for notice in notices:
            level = _log.error if notice.threshold <= 1 else _log.warning
            days = round((notice.expiry.expires_at - now) / rules.DAY_S, 1)
            event = "expiry.expired" if notice.threshold == 0 else "expiry.near"
            level(event, what=notice.expiry.name, expires_at=notice.expiry.expires_at, days_left=days)
            if self._note is not None:
                await self._keep(notice)

    async def _keep(self, notice: Notice) -> None:
        assert self._note is not None, "whoever calls has looked"
        try:
            await self._note(notice)
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)
            self._told.pop(notice.expiry.name, None)  # it is told again at the next look

    @property
    def found(self) -> list[Expiry]:
        """All that is known to expire, soonest end first."""
        return sorted((item for found in self._found.values() for item in found), key=lambda item: item.expires_at)

    def view(self) -> list[dict[str, Any]]:
        """Return what expires when, soonest first, then the sources that could not be asked, for JSON."""
        now = self._now()
        known = [
            {
                "name": item.name,
                "expires_at": item.expires_at,
                "days_left": round((item.expires_at - now) / rules.DAY_S, 1),
                "threshold_days": rules.threshold(item.expires_at, now),
            }
            for item in self.found
        ]
        return known + [{"name": name, "error": text} for name, text in sorted(self._faults.items())]

    def _note_fault(self, name: str, error: OrchestratorError) -> None:
        if self._faults.get(name) != error.message:
            _log.warning("expiry.unknown", what=name, code=error.code, error=error.message)
        self._faults[name] = error.message
