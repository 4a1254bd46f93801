"""Late joiners: devices that come to match the plan of an open cohort after its rollout was started.

Rules:
- The cohort is counted anew when the registry changed, in pieces, at most once in `PACE_S` for each rollout.
- Which release devices run, and whether they can be moved, changes without the registry: where too old devices wait
  for a stepping stone, and where endpoints are brought, the cohort is counted anew every `STONES_S`.
- Who joins is taken in by the current stage or a later one, offered the release under the same limits, and counts
  in its evidence; a rollout that is over lets nobody join.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from orchestrator.core import rollout as machine
from orchestrator.core.judging import evidence
from orchestrator.core.model import DAEMON, Phase, Rollout
from orchestrator.core.reason import counted
from orchestrator.engine.offers import allowance
from orchestrator.engine.rollouts.releases import release_of, ways
from orchestrator.engine.targeting.audience import audience_of, waiting
from orchestrator.errors import UnavailableError
from orchestrator.ports import Event, Lane, Store, Tx

LOOK_S = 5.0
PACE_S = 60.0
STONES_S = 300.0

_LIVE = (Phase.RUNNING, Phase.PAUSED, Phase.INCONCLUSIVE)
_log = structlog.get_logger(__name__)


class _Looked(NamedTuple):
    """When a cohort was counted, and at which version of the registry."""

    version: int
    at: float


class Joining:
    """Lets late joiners into open cohorts.

    Args:
        store: where devices and rollouts are.
        now: the clock.
        changed: called with the rollouts whose cohort grew.
    """

    def __init__(self, store: Store, now: Callable[[], float], changed: Callable[[set[int]], None]) -> None:
        self._store = store
        self._now = now
        self._changed = changed
        self._looked: dict[int, _Looked] = {}

    async def run(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)

    async def look(self) -> int:
        """Count the open cohorts that may have grown; returns how many devices joined."""
        version, rollouts, waited = await self._store.read(_open_ones)
        self._looked = {item.id: self._looked[item.id] for item in rollouts if item.id in self._looked}
        joined = 0
        for rollout in rollouts:
            looked = self._looked.get(rollout.id)
            now = self._now()
            pace_s = STONES_S if looked and looked.version == version else PACE_S
            if looked is None or (
                (looked.version != version or rollout.id in waited) and not 0 <= now - looked.at < pace_s
            ):
                self._looked[rollout.id] = _Looked(version, now)
                joined += await self._count(rollout)
        return joined

    async def _count(self, rollout: Rollout) -> int:
        audience, opened = await self._store.read(
            lambda tx: (audience_of(tx, rollout), evidence.opened(tx.tally(rollout.id)))
        )
        left = sum([len(chunk) async for chunk in waiting(self._store, audience)])
        work = partial(_join, rollout_id=rollout.id, opened=opened, left=left, now=self._now())
        more = await self._store.transact(Lane.OPERATOR, work)
        if more is None:
            self._looked[rollout.id] = _Looked(-1, self._now())  # it opened a stage meanwhile: count again
            return 0
        if more:
            _log.info("rollout.joined", rollout=rollout.plan.name, devices=more)
            self._changed({rollout.id})
        return more


def _open_ones(tx: Tx) -> tuple[int, list[Rollout], set[int]]:
    """Return the version of the registry, the rollouts with an open cohort, and those that may grow without it."""
    version = tx.registry_version()
    found = [item for item in tx.rollouts(_LIVE) if item.plan.open_cohort and item.cohort_size is not None]
    return version, found, {item.id for item in found if item.moves or ways(tx, release_of(tx, item))}


def _join(tx: Tx, rollout_id: int, opened: int, left: int, now: float) -> int | None:
    """Let the cohort grow to what was counted; None if devices were taken in meanwhile."""
    rollout = tx.rollout(rollout_id)
    assert rollout is not None, "rollouts are never deleted"
    if evidence.opened(tx.tally(rollout_id)) != opened:
        return None
    if rollout.phase not in _LIVE:
        return 0
    size = opened + left
    larger = machine.joined(rollout, min(size, allowance.warranted(tx, rollout) or size))
    more = (larger.cohort_size or 0) - (rollout.cohort_size or 0)
    if more:
        text = f"{counted(more, 'device')} joined the cohort after the start"
        tx.save_rollout(larger, Event(now, larger.phase, "joined", text, DAEMON, larger.stage))
        said = {"devices": more, "size": larger.cohort_size}
        tx.audit(DAEMON, "rollout.joined", rollout.plan.name, said, now)
    return more
