"""Carries out the effects of a decision, inside the transaction that saves it.

Rules:
- Nothing is decided here: how many, whether and why came from `core.rollout`.
- Every offer passes the blast ceiling here once more, whoever asks for it, and is counted against it.
- A withdrawn device was never exposed and is pending again; a device whose trigger was claimed for
  sending keeps its slot and gets a recall instead.
- Who was recalled is pending again when its rollout goes on, unless it had refused for good.
- A halt recalls whoever may still follow a trigger, also devices whose answer nobody waits for any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.core import rollout as machine
from orchestrator.core import update as update_machine
from orchestrator.core.judging import judgement
from orchestrator.core.model import OTAD, Delivery, Phase, Rollout, Update, UpdateState
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.cohort import Member
from orchestrator.core.update import IN_FLIGHT, REFUSALS, RETRIABLE, Fact, FactKind
from orchestrator.engine.offers import allowance, holds
from orchestrator.engine.reports import refusals
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.reports.outcomes import CURRENT
from orchestrator.ports import EXPOSED, QUEUED, DeliveryKind, DeliveryState, Parcel, Tx

_RECALLABLE = (UpdateState.OFFERED, UpdateState.ACCEPTED, UpdateState.DOWNLOADED)
_MAY_FOLLOW = (UpdateState.OFFERED, UpdateState.UNREACHED, *REFUSALS)
"""States of a device that did not take its trigger, and still may."""
_NOT_BEGUN = frozenset(
    {
        UpdateState.PENDING,
        UpdateState.UNREACHED,
        UpdateState.REFUSED,
        UpdateState.POSTPONED,
        UpdateState.RETRYING,
        UpdateState.RECALLED,
        UpdateState.OFFERED,
    }
)


def carry_out(tx: Tx, rollout: Rollout, effect: machine.Effect, now: float, limits: Ceiling) -> bool:
    """Carry out one effect; `Open` and `Prepare` are long and belong to the conductor.

    Returns:
        Whether it moved anything. An offer does not while all pending devices are busy elsewhere.
    """
    match effect:
        case machine.Offer(count):
            return offer(tx, rollout, count, now, limits) > 0
        case machine.VoidQueued():
            withdraw(tx, rollout, now)
        case machine.Recall():
            given_up = tx.updates(tx.reachable(rollout.id, now))
            tx.plan(DeliveryKind.CANCEL, _as_sent(tx, given_up.values()), rollout.version, now, push=True)
            recall(tx, rollout, tx.updates_in(rollout.id, _RECALLABLE), now)
        case machine.Carry():
            carry(tx, rollout)
        case machine.Again():
            failed = tx.updates_in(rollout.id, RETRIABLE)
            fold(tx, [(item, Fact(FactKind.AGAIN)) for item in failed], now, Recorded())
        case machine.Return():
            recalled = tx.updates_in(rollout.id, (UpdateState.RECALLED,))
            back = [item for item in recalled if not refusals.is_final(tx, rollout, item)]
            fold(tx, [(item, Fact(FactKind.RETURN)) for item in back], now, Recorded())
        case _:
            raise AssertionError(f"{effect} is not carried out in one transaction")
    return True


def offer(tx: Tx, rollout: Rollout, count: int, now: float, limits: Ceiling) -> int:
    """Offer the release to the next pending devices that nothing holds and no newer rollout took, below the limits.

    Returns:
        How many were looked at.
    """
    most = allowance.most(tx, rollout, limits, now)
    pending, looked = holds.free(tx, rollout, min(count, most), now)
    taken = _supersede(tx, rollout, pending, now)
    taken |= _close(tx, rollout, [item for item in pending if item.id not in taken], now)
    chosen = [item for item in pending if item.id not in taken]
    offered = fold(tx, [(item, Fact(FactKind.OFFER)) for item in chosen], now, Recorded())
    allowance.book(tx, len(chosen), now)
    push = rollout.plan.delivery is not Delivery.POLL
    tx.plan(DeliveryKind.INSTALL, [offered[item.id] for item in chosen], rollout.version, now, push=push)
    if rollout.plan.ramp is not None and chosen:
        tx.save_rollout(judgement.started(rollout, len(chosen), now), None)
    return looked


def withdraw(tx: Tx, rollout: Rollout, now: float) -> None:
    """Void queued triggers; devices that were never exposed to one are pending again."""
    found = tx.updates(tx.withdraw(rollout.id))
    fold(tx, [(item, Fact(FactKind.WITHDRAW)) for item in found.values()], now, Recorded())


def make_anew(tx: Tx, rollout: Rollout, now: float) -> None:
    """Void what is queued, and plan it once more for everyone who still waits for it: its tokens are worth nothing."""
    tx.withdraw(rollout.id)
    push = rollout.plan.delivery is not Delivery.POLL
    if rollout.phase is Phase.RUNNING:
        offered = tx.updates_in(rollout.id, (UpdateState.OFFERED,))
        tx.plan(DeliveryKind.INSTALL, offered, rollout.version, now, push=push)
    recalling = tx.updates_in(rollout.id, (UpdateState.RECALLING,))
    tx.plan(DeliveryKind.CANCEL, recalling, rollout.version, now, push=push)


def recall(tx: Tx, rollout: Rollout, updates: Sequence[Update], now: float) -> None:
    """Recall devices that were offered the release and have not installed it."""
    recalled = fold(tx, [(item, Fact(FactKind.RECALL)) for item in updates], now, Recorded())
    tx.plan(DeliveryKind.CANCEL, [recalled[item.id] for item in updates], rollout.version, now, push=True)


def carry(tx: Tx, rollout: Rollout) -> None:
    """Count the devices that are under way in the rollout's present epoch."""
    under_way = tx.updates_in(rollout.id, IN_FLIGHT)
    carried = [item._replace(epoch=rollout.epoch) for item in under_way]
    tx.save_updates(carried, ())
    tx.change_tallies(rollout.id, update_machine.tally_changes(under_way, carried))


def open_members(tx: Tx, rollout: Rollout, members: Sequence[Member], rel: int, now: float) -> int:
    """Take devices into the current stage and supersede what they have not begun elsewhere.

    Returns:
        How many of them are new in this rollout.
    """
    opened = tx.open_updates(rollout, members, rel, now)
    tx.change_tallies(rollout.id, update_machine.tally_changes((), opened))
    _supersede(tx, rollout, opened, now)
    return len(opened)


def _supersede(tx: Tx, rollout: Rollout, updates: Sequence[Update], now: float) -> set[int]:
    """The newest rollout owns a device: what it has not begun elsewhere is closed, in either direction.

    Firmware and endpoints take nothing from each other; a device just begins one thing at a time.

    It is looked at when a device is taken in and again when it is offered the release: in between, an
    older rollout may have been recalled, or resumed.

    Returns:
        Those of the updates that a newer rollout owns; they are closed.
    """
    over = {item.id for item in tx.rollouts(machine.FINISHED)}
    live = [
        item
        for item in tx.updates_of([item.device_id for item in updates], _NOT_BEGUN | IN_FLIGHT)
        if item.rollout_id != rollout.id
    ]
    alike = {number for number in {item.rollout_id for item in live} if _brings_alike(tx, rollout, number)}
    live = [item for item in live if item.rollout_id in alike]
    owned = {
        item.device_id
        for item in live
        if item.rollout_id > rollout.id and (item.state in IN_FLIGHT or item.rollout_id not in over)
    }
    older = [item for item in live if item.rollout_id < rollout.id and item.state in _NOT_BEGUN]
    taken = [item for item in updates if item.device_id in owned]
    fold(tx, [(item, Fact(FactKind.SUPERSEDE)) for item in (*older, *taken)], now, Recorded())
    # Who is pending again had a trigger, of this attempt or of the one before; it may still wait at the broker.
    pending = {item.id for item in older if item.state is UpdateState.PENDING}
    again = tx.were_exposed(pending) if pending else frozenset[int]()
    may_follow = [item for item in older if item.id in again or item.state in _MAY_FOLLOW]
    exposed = [item for item in may_follow if _recall_needed(tx, item, now)]
    tx.plan(DeliveryKind.CANCEL, _as_sent(tx, exposed), rollout.version, now, push=True)
    return {item.id for item in taken}


def _close(tx: Tx, rollout: Rollout, updates: Sequence[Update], now: float) -> set[int]:
    """Close the updates of devices that are in quarantine by now, or that run the release already.

    Who may have had a trigger is not closed for what it runs: what it has still to say counts. Clients that verify none
    begin with us alone, and have begun nothing.

    Returns:
        Those that were closed.
    """
    devices = {item.id: item for item in tx.devices_named([item.device_id for item in updates])}
    codes: dict[int, str] = {}
    for update in updates:
        device = devices.get(update.device_id)
        if device is not None and device.quarantine:
            codes[update.id] = "quarantined"
        elif device is not None and cohort.is_current(device, update.rel, rollout.plan.leaves, moves=rollout.moves):
            codes[update.id] = CURRENT
    verify = {item.id for item in updates if item.id in codes and devices[item.device_id].dialect == OTAD}
    exposed = tx.were_exposed(verify) if verify else frozenset[int]()
    closed = [item for item in updates if item.id in codes and not (codes[item.id] == CURRENT and item.id in exposed)]
    fold(tx, [(item, Fact(FactKind.SUPERSEDE, code=codes[item.id])) for item in closed], now, Recorded())
    return {item.id for item in closed}


def _brings_alike(tx: Tx, rollout: Rollout, rollout_id: int) -> bool:
    other = tx.rollout(rollout_id)
    return other is not None and other.moves is rollout.moves


def _as_sent(tx: Tx, updates: Iterable[Update]) -> list[Update]:
    """Return updates in the attempt of the last trigger that may have reached the device: a recall works by it."""
    return [item if item.attempt == 1 else item._replace(attempt=_last_sent(tx, item)) for item in updates]


def _last_sent(tx: Tx, update: Update) -> int:
    return max(item.attempt for item in _triggers(tx, update) if item.state in EXPOSED)


def _triggers(tx: Tx, update: Update) -> list[Parcel]:
    return [item for item in tx.parcels(update.id) if item.kind is DeliveryKind.INSTALL]


def _recall_needed(tx: Tx, update: Update, now: float) -> bool:
    """Void the triggers of an update that are still queued; says whether another one may have reached the device."""
    parcels = _triggers(tx, update)
    tx.settle([item.id for item in parcels if item.state in QUEUED], DeliveryState.VOID, now)
    return any(item.state in EXPOSED for item in parcels)
