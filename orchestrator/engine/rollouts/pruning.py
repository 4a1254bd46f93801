"""What is forgotten, so that the store does not grow for ever.

Rules:
- The updates of a rollout that has been over for `keep_s` go, with their reports and deliveries; its tallies, its
  record and its plans stay, and the audit log always.
- What operators said of devices before goes as soon as no fixed cohort is judged by it.
- Nothing goes before the clock has gone on for a day since its last jump: one that is wrong makes all look old.
- In pieces, each a short transaction of the last lane, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from orchestrator.core import rollout as machine
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Store, Tx

EVERY_S = 600.0
CALM_S = 86_400.0
"""A clock that is set ahead by mistake is put right within so long."""
PIECE = 500
"""Rows that one transaction looks for; each may have some more that belong to it."""

_log = structlog.get_logger(__name__)


class Pruner:
    """Forgets.

    Args:
        store: what must not grow for ever.
        keep_s: how long the details of a rollout are kept after its end.
        now: the clock.
        calm_s: for how long the clock has not jumped.
    """

    def __init__(self, store: Store, keep_s: float, now: Callable[[], float], calm_s: Callable[[], float]) -> None:
        self._store = store
        self._keep_s = keep_s
        self._now = now
        self._calm_s = calm_s

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Forget what is old, for ever."""
        while True:
            await pause(EVERY_S)
            try:
                await self.prune()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)

    async def prune(self) -> int:
        """Forget all that is old now; returns how many updates and facts that were."""
        if self._calm_s() < CALM_S:
            return 0
        now = self._now()
        await self._store.transact(Lane.BULK, _fold_finished)
        updates = await self._in_pieces(partial(_forget_updates, before=now - self._keep_s, now=now))
        facts = await self._in_pieces(_forget_facts)
        if updates or facts:
            _log.info("store.pruned", updates=updates, facts=facts)
        return updates + facts

    async def _in_pieces(self, piece: Callable[[Tx], int]) -> int:
        total = 0
        while count := await self._store.transact(Lane.BULK, piece):
            total += count
        return total


def _fold_finished(tx: Tx) -> None:
    """Sum the tally changes of late reports: nobody steps their rollout any more."""
    for rollout in tx.rollouts(machine.FINISHED):
        tx.fold(rollout.id)


def _forget_updates(tx: Tx, before: float, now: float) -> int:
    return tx.forget_updates(before, now, PIECE)


def _forget_facts(tx: Tx) -> int:
    fixed = [item for item in tx.rollouts(machine.BEGUN) if not item.plan.open_cohort]
    since = [item.moved_at if item.cohort_at is None else item.cohort_at for item in fixed]
    return tx.forget_facts(min(since, default=float("inf")), PIECE)
