"""What is not believed: a device that says it is healthy sooner than any device could be.

Rules:
- Only a good word is doubted. That a device failed is believed at once: it costs a halt, never an advance.
- The time counts from when its trigger was planned, which is before it went out: no honest device is wronged by that.
- A word that is not believed changes nothing; the update stays open, and its deadline judges it.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.model import Rollout, Update
from orchestrator.ports import EXPOSED, DeliveryKind, Tx
from orchestrator.wire.report import Kind, Report

TOO_SOON = "too_soon"


class Doubt:
    """Judges the words of one batch.

    Args:
        tx: the transaction.
        now: present time.
        rollout_of: returns a rollout by its number.
    """

    def __init__(self, tx: Tx, now: float, rollout_of: Callable[[int], Rollout | None]) -> None:
        self._tx = tx
        self._now = now
        self._rollout_of = rollout_of

    def believes(self, update: Update, attempt: int, report: Report) -> bool:
        """Say whether a report of the device of an update may count."""
        if report.kind is not Kind.CONFIRMED:
            return True
        rollout = self._rollout_of(update.rollout_id)
        soonest_s = 0.0 if rollout is None else rollout.plan.soonest_s
        return not soonest_s or self._is_possible(update, attempt, soonest_s)

    def _is_possible(self, update: Update, attempt: int, soonest_s: float) -> bool:
        return any(
            self._now - parcel.planned_at >= soonest_s
            for parcel in self._tx.parcels(update.id)
            if parcel.kind is DeliveryKind.INSTALL and parcel.state in EXPOSED and parcel.attempt == attempt
        )
