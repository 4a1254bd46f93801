"""Jumps of the clock: somebody set it, or the machine slept. No deadline passes by that, and none waits for ever.

Rules:
- The clock is compared with one that nobody can set; that they part by more than `JUMP_S` at once is a jump.
- From then on, and for the grace period of a broken link, no silence is judged and nothing passes.
- Deadlines, and the soak of stages, are moved by the jump, whichever way it went; what was made after it stays.
- A jump while the daemon did not run cannot be told from time that passed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from orchestrator.core import rollout as machine
from orchestrator.core.model import DAEMON, Phase, Rollout, Update
from orchestrator.core.update import IN_FLIGHT, RETRIABLE, TRY_AGAIN
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Store, Tx

LOOK_S = 1.0
JUMP_S = 5.0
"""A clock that is slewed, or corrected by less, makes no difference to anybody."""

_LIVE = frozenset(Phase) - machine.FINISHED - {Phase.DRAFT}
_TRY_AGAIN = RETRIABLE | TRY_AGAIN
_ALL = 2**31
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Jump:
    """The clock jumped.

    Attributes:
        at: the time at which it was noticed, by the clock as it goes now.
        by_s: by how much; negative for back.
        since_s: how long before at most it happened.
    """

    at: float
    by_s: float
    since_s: float

    def is_older(self, at: float, now: float) -> bool:
        """Say whether a time was taken before the jump; where nobody can know it is taken for later."""
        return not self.at - self.since_s <= at <= now


class Jumps:
    """Notices jumps, and moves what they would make pass.

    Args:
        store: where deadlines are.
        now: the clock.
        monotonic: a clock that nobody sets.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._before = (now(), monotonic())
        self._waiting: deque[Jump] = deque()
        self.last: Jump | None = None

    def steady(self) -> bool:
        """Say whether the clock goes on as it did, and nothing is still to be moved."""
        seen = (self._now(), self._monotonic())
        passed_s = seen[1] - self._before[1]
        by_s = seen[0] - self._before[0] - passed_s
        self._before = seen
        if abs(by_s) > JUMP_S:
            self.last = Jump(seen[0], by_s, passed_s)
            self._waiting.append(self.last)
            _log.warning("clock.jumped", by_s=round(by_s, 1))
        return not self._waiting

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Look every second, for ever."""
        while True:
            await pause(LOOK_S)
            try:
                await self.settle()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)

    async def settle(self) -> None:
        """Move what the jumps until now would make pass, each in one transaction."""
        self.steady()
        while self._waiting:
            work = partial(move, jump=self._waiting[0], now=self._now())
            await self._store.transact(Lane.OPERATOR, work)
            self._waiting.popleft()


def move(tx: Tx, jump: Jump, now: float) -> None:
    """Move deadlines and soaks by a jump."""
    for rollout in tx.rollouts(_LIVE):
        updates = tx.updates_in(rollout.id, IN_FLIGHT) + tx.updates_in(rollout.id, _TRY_AGAIN)
        tx.save_updates(_later(updates, jump, now), ())
        if jump.by_s < 0:
            tx.release_holds(rollout.id, float("inf"), _ALL)  # they would hold until the clock is there again
        after = _moved(rollout, jump, now)
        if after != rollout:
            tx.save_rollout(after, None)
    tx.audit(DAEMON, "clock.jumped", "daemon", {"by_s": round(jump.by_s)}, now)


def _later(updates: Sequence[Update], jump: Jump, now: float) -> list[Update]:
    return [
        item._replace(deadline_at=item.deadline_at + jump.by_s)
        for item in updates
        if item.deadline_at is not None and jump.is_older(item.state_at, now)
    ]


def _moved(rollout: Rollout, jump: Jump, now: float) -> Rollout:
    """Return a rollout whose soak goes on where it was, and that did not move in the future."""
    after = replace(rollout, moved_at=min(rollout.moved_at, now))
    if not rollout.stages or rollout.current.resolved_at is None:
        return after
    if not jump.is_older(rollout.current.resolved_at, now):
        return after
    return after.with_current(replace(rollout.current, resolved_at=rollout.current.resolved_at + jump.by_s))
