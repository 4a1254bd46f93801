"""Jumps of the clock: somebody set it, or the machine slept. No deadline passes by that, and none waits for ever.

Rules:
- The clock is compared with one that nobody can set; that they part by more than `JUMP_S` at once is a jump.
- From then on, and for the grace period of a broken link, no silence is judged and nothing passes.
- Deadlines, the soak of stages, an outage, the hour of the blast ceiling, and since when devices wait, are moved by the
  jump, whichever way it went; what was made after it stays. So are the times of registration, so that who comes later
  does not seem to have come before.
- In pieces, and nothing is judged before the last of them; what devices say goes on meanwhile. How far it has come is
  stored with each: whoever starts after a death in between goes on there, before anything else is moved.
- A jump while the daemon did not run cannot be told from time that passed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from orchestrator.core import rollout as machine
from orchestrator.core.model import DAEMON, Rollout
from orchestrator.core.pace import ceiling
from orchestrator.errors import UnavailableError
from orchestrator.ports import Jump, Lane, Part, Piece, Store, Tx

LOOK_S = 1.0
JUMP_S = 5.0
"""A clock that is slewed, or corrected by less, makes no difference to anybody."""
PIECE = 5000
"""Rows that one transaction looks at."""

_log = structlog.get_logger(__name__)


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
        self._waiting: deque[tuple[Jump, Piece]] = deque()
        self._jumped_at = -math.inf
        self.last: Jump | None = None

    def steady(self) -> bool:
        """Say whether the clock goes on as it did, and nothing is still to be moved."""
        seen = (self._now(), self._monotonic())
        passed_s = seen[1] - self._before[1]
        by_s = seen[0] - self._before[0] - passed_s
        self._before = seen
        if abs(by_s) > JUMP_S:
            self.last = Jump(seen[0], by_s, passed_s)
            self._jumped_at = seen[1]
            self._waiting.append((self.last, Piece(Part.ROLLOUTS)))
            _log.warning("clock.jumped", by_s=round(by_s, 1))
        return not self._waiting

    def calm_s(self) -> float:
        """Return for how long there was no jump that is known of."""
        self.steady()
        return self._monotonic() - self._jumped_at

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Go on with the jump that an earlier process left unfinished, then look every second, for ever."""
        asked = False
        while True:
            try:
                if not asked:
                    await self.resume()
                    asked = True
                await self.settle()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)
            await pause(LOOK_S)

    async def resume(self) -> None:
        """Go on where an earlier process died in the midst of a jump; nothing is judged before its end."""
        found = await self._store.read(lambda tx: tx.unfinished_jump())
        if found is not None:
            self._waiting.appendleft(found)
            self._jumped_at = self._monotonic()
            _log.warning("clock.jump_resumed", by_s=round(found[0].by_s, 1), part=found[1].part.value)

    async def settle(self) -> None:
        """Move what the jumps until now would make pass; a store that is away is asked for the same piece again."""
        self.steady()
        while self._waiting:
            jump, piece = self._waiting[0]
            work = partial(move, jump=jump, piece=piece, now=self._now())
            following = await self._store.transact(Lane.OPERATOR, work)
            if following is None:
                self._waiting.popleft()
            else:
                self._waiting[0] = (jump, following)


def move(tx: Tx, jump: Jump, piece: Piece, now: float) -> Piece | None:
    """Move a piece, and keep where it goes on; returns that, None where it was the last one."""
    following = _PARTS[piece.part](tx, jump, now, piece.after)
    tx.keep_jump(jump, following)
    return following


def _move_rollouts(tx: Tx, jump: Jump, now: float, _after: str) -> Piece:
    """Move what is said of rollouts as a whole, and an outage."""
    for rollout in tx.rollouts(machine.BEGUN):
        after = _moved(rollout, jump, now)
        if after != rollout:
            tx.save_rollout(after, None)
    tx.move_outage(jump, now)
    tx.save_offers(ceiling.moved(tx.offers(), jump.by_s, partial(jump.is_older, now=now)))
    tx.audit(DAEMON, "clock.jumped", "daemon", {"by_s": round(jump.by_s)}, now)
    return Piece(Part.UPDATES)


def _move_updates(tx: Tx, jump: Jump, now: float, after: str) -> Piece:
    last = tx.move_updates(jump, now, int(after or 0), PIECE)
    return Piece(Part.DEVICES) if last is None else Piece(Part.UPDATES, str(last))


def _move_devices(tx: Tx, jump: Jump, now: float, after: str) -> Piece | None:
    last = tx.move_devices(jump, now, after, PIECE)
    return None if last is None else Piece(Part.DEVICES, last)


_PARTS: dict[Part, Callable[[Tx, Jump, float, str], Piece | None]] = {
    Part.ROLLOUTS: _move_rollouts,
    Part.UPDATES: _move_updates,
    Part.DEVICES: _move_devices,
}


def _moved(rollout: Rollout, jump: Jump, now: float) -> Rollout:
    """Return a rollout whose soak goes on where it was, and that did not move in the future."""
    after = replace(rollout, moved_at=min(rollout.moved_at, now))
    if after.cohort_at is not None and jump.was_before(after.cohort_at, now):
        after = replace(after, cohort_at=after.cohort_at + jump.by_s)
    if not rollout.stages or rollout.current.resolved_at is None:
        return after
    if not jump.is_older(rollout.current.resolved_at, now):
        return after
    return after.with_current(replace(rollout.current, resolved_at=rollout.current.resolved_at + jump.by_s))
