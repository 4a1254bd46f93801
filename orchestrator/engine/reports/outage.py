"""Outages: many devices that no rollout touches go away at once, so that silence says nothing about a release.

Rules:
- Only devices that hold no slot are counted: one that reboots into a release, or dies of it, is evidence, no outage.
- While an outage lasts nothing is offered, nothing passes and no silence is judged. What devices say counts, and halts.
- It is over when half of those that make an outage are left, or after `LONGEST_S`: who is gone so long is gone.
- Then every deadline is later by the time that it ran in the outage, so that nobody is judged for it; also those of
  rollouts that are over, some of whose devices are still on their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.judging.outside import Outage
from orchestrator.core.model import DAEMON, Update, UpdateState
from orchestrator.core.update import IN_FLIGHT
from orchestrator.ports import Tx
from orchestrator.wire.report import State

WINDOW_S = 600.0
"""Devices that go within so long go together."""

LONGEST_S = 86_400.0
"""An outage is over after so long, however many are still away."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How many devices that go away together make an outage.

    Attributes:
        share: more than this share of those that were connected; 1 for never.
        floor: and at least so many.
    """

    share: float = 0.2
    floor: int = 20

    def makes(self, gone: int, connected: int) -> bool:
        """Say whether it is an outage that so many are gone, and so many still connected."""
        return gone >= self.floor and gone > self.share * (gone + connected)

    def is_over(self, gone: int, connected: int) -> bool:
        """Say whether an outage is over once so many are still gone."""
        return 2 * gone < self.floor or 2 * gone <= self.share * (gone + connected)


STANDARD = Loss()
"""What a daemon goes by that was told nothing else."""


def watch(tx: Tx, states: Sequence[State], now: float, loss: Loss) -> None:
    """Note who went and who came back, and begin or end an outage by that; before the states are stored."""
    if not states:
        return
    tx.note_connections(states, now)
    present = tx.outage()
    if present is not None:
        _end_if_over(tx, present, now, loss)
        return
    gone, connected = tx.gone_since(now - WINDOW_S), tx.connected()
    if loss.makes(gone, connected):
        begun = Outage(now, gone, gone / (gone + connected))
        tx.begin_outage(begun)
        tx.audit(DAEMON, "outage.began", "fleet", _said(gone, connected), now)


def lasts(tx: Tx, now: float) -> bool:
    """Say whether an outage goes on, and end one that has lasted too long."""
    present = tx.outage()
    if present is None:
        return False
    if 0 <= now - present.began_at < LONGEST_S:
        return True
    _end(tx, present, now, "too_long")
    return False


def _end_if_over(tx: Tx, present: Outage, now: float, loss: Loss) -> None:
    gone = tx.gone_since(present.began_at - WINDOW_S)
    if loss.is_over(gone, tx.connected()):
        _end(tx, present, now, "back")


def _end(tx: Tx, present: Outage, now: float, why: str) -> None:
    tx.end_outage(now)
    said = _said(tx.gone_since(present.began_at - WINDOW_S), tx.connected()) | {"why": why}
    tx.audit(DAEMON, "outage.ended", "fleet", said | {"lasted_s": round(now - present.began_at)}, now)
    for rollout_id in tx.in_flight():
        prolong(tx, tx.updates_in(rollout_id, IN_FLIGHT), present.began_at, now)


def prolong(tx: Tx, updates: Sequence[Update], began_at: float, now: float) -> None:
    """Make deadlines later by the time that they ran since then."""
    later = [
        item._replace(deadline_at=item.deadline_at + ran_s)
        for item in updates
        if item.deadline_at is not None and (ran_s := now - _runs_since(item, began_at)) > 0
    ]
    tx.save_updates(later, ())


def _runs_since(update: Update, began_at: float) -> float:
    """Nothing is offered in an outage; and the time of an offer stays where it was when the clock is set."""
    return began_at if update.state is UpdateState.OFFERED else max(began_at, update.state_at)


def _said(gone: int, connected: int) -> dict[str, Any]:
    return {"gone": gone, "connected": connected}
