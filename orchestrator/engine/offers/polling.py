"""What a device that asks gets: the same stored, signed trigger that a push would bring.

Rules:
- A poll decides nothing: it hands over what the conductor planned and the sealer signed.
- A rollout that is stopped hands over nothing but recalls, also while the stop could not be stored.
- A device that has not begun gets nothing while its hours are closed.
- Handing over a delivery that could still be withdrawn is a write, so that a halt and a poll cannot
  both have it.
- A device that has begun gets its trigger again as a refresh; one that is being recalled gets the recall.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from orchestrator.core.model import Delivery, Device, Update, UpdateState
from orchestrator.core.rollout import FINISHED
from orchestrator.core.update import IN_FLIGHT, Fact, FactKind
from orchestrator.engine.offers import holds
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.reports.recording import may_return, reissue
from orchestrator.ports import DeliveryKind, DeliveryState, Parcel, Tx

_LIVE = IN_FLIGHT | {UpdateState.UNREACHED}
_HANDED = (DeliveryState.CLAIMED, DeliveryState.SENT)
SOON_S = 2
"""A device whose trigger is being made should ask again this soon."""


@dataclass(frozen=True, slots=True)
class Brings:
    """What a device that asked shall do; dialects say it in their own words.

    Attributes:
        update: its update.
        model: hardware model that the trigger names.
        recall: whether the update is being recalled.
    """

    update: Update
    model: str
    recall: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a poll gets.

    Attributes:
        token: the bundle, "" for nothing.
        brings: what that says; also of a device that has begun, and whose trigger is too old to be given again.
        retry_after_s: when to ask again, None where the device's own rhythm is right.
        rollouts: rollouts whose tallies changed.
        planned: whether a delivery was planned.
        idle: whether no clock and no hour, but only a commit can bring the device something.
    """

    token: str = ""
    retry_after_s: int | None = None
    rollouts: frozenset[int] = frozenset()
    planned: bool = False
    brings: Brings | None = None
    idle: bool = field(default=False, compare=False)


def look(tx: Tx, device: Device, now: float, stopped: Collection[int] = ()) -> Answer | None:
    """Answer from a snapshot if no write is needed; None if it is.

    Args:
        tx: the transaction.
        device: who asks.
        now: present time.
        stopped: rollouts whose stop is not stored yet.
    """
    update = _live_update(tx, device)
    if update is None:
        return Answer(idle=True)
    if _is_stopped(update, stopped):
        return Answer()
    if update.state is UpdateState.UNREACHED:
        return None if may_return(tx, update, now) else Answer()
    if _is_shut(tx, update, now):
        return Answer()
    parcel = _current(tx, update)
    if parcel is None:
        last = tx.parcels(update.id)[-1:]  # nobody knows whether it arrived: here is who would know
        lost = update.state is UpdateState.OFFERED and any(item.state is DeliveryState.UNKNOWN for item in last)
        return None if lost else Answer(retry_after_s=SOON_S)
    if parcel.state in _HANDED and (parcel.expires_at or 0.0) > now:
        return Answer(token=parcel.token, brings=_brings(update, parcel))
    if parcel.state in _HANDED and update.begun:
        return Answer(brings=_brings(update, parcel))
    return Answer(retry_after_s=SOON_S) if parcel.state is DeliveryState.PLANNED else None


def give(tx: Tx, device: Device, now: float, stopped: Collection[int] = ()) -> Answer:
    """Answer with the writes that it takes; see `look`."""
    update = _live_update(tx, device)
    if update is None or _is_stopped(update, stopped):
        return Answer()
    if update.state is UpdateState.UNREACHED and not may_return(tx, update, now):
        return Answer()
    if update.state is UpdateState.UNREACHED:
        done = Recorded()
        fold(tx, [(update, Fact(FactKind.RETURN))], now, done)
        return Answer(retry_after_s=SOON_S, rollouts=frozenset(done.rollouts))
    if _is_shut(tx, update, now):
        return Answer()
    parcel = _current(tx, update)
    if parcel is not None and parcel.token and (parcel.expires_at or 0.0) > now and tx.hand_over(parcel.id, now):
        return Answer(token=parcel.token, brings=_brings(update, parcel))
    if update.state is UpdateState.OFFERED:
        planned = reissue(tx, update.rollout_id, [update], now)
        return Answer(retry_after_s=SOON_S, planned=planned)
    return Answer()


def _brings(update: Update, parcel: Parcel) -> Brings:
    return Brings(update, parcel.model, parcel.kind is DeliveryKind.CANCEL)


def is_idle(tx: Tx, device: Device) -> bool:
    """Say whether only a commit can bring a device something: no clock, no hour and no stop."""
    return _live_update(tx, device) is None


def _live_update(tx: Tx, device: Device) -> Update | None:
    found = [item for item in tx.updates_of([device.id], _LIVE) if _polls(tx, item)]
    return max(found, key=lambda item: (item.state in IN_FLIGHT, item.id), default=None)


def _polls(tx: Tx, update: Update) -> bool:
    """Say whether a poll may bring something of this update; a rollout that is over takes nobody back."""
    rollout = tx.rollout(update.rollout_id)
    if rollout is None or rollout.plan.delivery is Delivery.PUSH:
        return False
    return update.state in IN_FLIGHT or rollout.phase not in FINISHED


def _is_stopped(update: Update, stopped: Collection[int]) -> bool:
    return update.rollout_id in stopped and update.state is not UpdateState.RECALLING


def _is_shut(tx: Tx, update: Update, now: float) -> bool:
    """Say whether a device that was offered the release, and has not begun, may not begin at this hour."""
    rollout = tx.rollout(update.rollout_id)
    return update.state is UpdateState.OFFERED and rollout is not None and bool(holds.shut(tx, rollout, [update], now))


def _current(tx: Tx, update: Update) -> Parcel | None:
    """Return the delivery that the device should have: the recall while one is under way, else the last trigger."""
    wanted = DeliveryKind.CANCEL if update.state is UpdateState.RECALLING else DeliveryKind.INSTALL
    void = (DeliveryState.VOID, DeliveryState.UNKNOWN)
    parcels = [item for item in tx.parcels(update.id) if item.kind is wanted and item.state not in void]
    return parcels[-1] if parcels else None
