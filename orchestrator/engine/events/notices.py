"""What nobody decides and operators must hear of all the same: refusals, what expires, and the lost link.

Rules:
- It enters the audit log as everything else does; the courier brings it from there.
- What was told is stored beside it: a restart tells nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from orchestrator.core.model import DAEMON
from orchestrator.core.trust.expiry import Notice
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import Bus, Lane, Store, Tx

LOOK_S = 1.0
LOST_AFTER_S = 60.0
"""How long the link may be away before anybody is told."""
_LINK, _LOST, _BACK = "link", "lost", "back"
_log = structlog.get_logger(__name__)


def tell_refusal(tx: Tx, uri: str, error: OrchestratorError, actor: str, now: float) -> None:
    """Tell that an artifact was refused; the watch refuses the same one anew after each start."""
    if actor != DAEMON or tx.tell(f"refused {uri}", f"{error.code} {error.message}"):
        tx.audit(actor, "artifact.refused", uri, {"code": error.code, "reason": error.message}, now)


def tell_expiry(tx: Tx, notice: Notice, now: float) -> None:
    """Tell that something ends soon, or has ended."""
    name, expires_at = notice.expiry
    if tx.tell(f"expiry {name}", f"{expires_at:.0f} {notice.threshold}"):
        action = "expiry.near" if notice.threshold else "expiry.expired"
        tx.audit(DAEMON, action, name, {"expires_at": expires_at, "threshold_days": notice.threshold}, now)


class LinkWatch:
    """Tells when the link to the broker has been lost for long, and when it is back after that.

    Args:
        store: where that is told.
        bus: the broker.
        now: the clock.
    """

    def __init__(self, store: Store, bus: Bus, now: Callable[[], float]) -> None:
        self._store = store
        self._bus = bus
        self._now = now
        self._since: float | None = None
        self._told = False
        self._looked_back = False

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)
            await pause(LOOK_S)

    async def look(self) -> None:
        """Look once, and tell what is new. Raises UnavailableError if the store is away."""
        now = self._now()
        if self._bus.link:
            if self._told or not self._looked_back:  # the process before may have told of a loss
                await self._store.transact(Lane.BULK, lambda tx: _tell_back(tx, now))
            self._since, self._told, self._looked_back = None, False, True
            return
        self._since = now if self._since is None else min(self._since, now)
        if not self._told and now - self._since >= LOST_AFTER_S:
            since = self._since
            await self._store.transact(Lane.BULK, lambda tx: _tell_lost(tx, since, now))
            self._told = True


def _tell_lost(tx: Tx, since: float, now: float) -> None:
    if tx.told(_LINK).partition(" ")[0] != _LOST:
        tx.tell(_LINK, f"{_LOST} {since:.0f}")
        tx.audit(DAEMON, "link.lost", "broker", {"since": round(since)}, now)


def _tell_back(tx: Tx, now: float) -> None:
    state, _, since = tx.told(_LINK).partition(" ")
    if state == _LOST:
        tx.tell(_LINK, _BACK)
        said = {"since": int(since), "lasted_s": round(now - int(since))}
        tx.audit(DAEMON, "link.back", "broker", said, now)
