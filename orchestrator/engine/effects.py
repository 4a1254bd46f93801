"""Carries out the effects of a decision, inside the transaction that saves it.

Rules:
- Nothing is decided here: how many, whether and why came from `core.rollout`.
- A withdrawn device was never exposed and is pending again; a device whose trigger was claimed for
  sending keeps its slot and gets a recall instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core import rollout as machine
from orchestrator.core import update as update_machine
from orchestrator.core.cohort import Member
from orchestrator.core.model import Delivery, Rollout, Update, UpdateState
from orchestrator.core.update import IN_FLIGHT, Fact, FactKind
from orchestrator.engine.recording import Recorded, fold
from orchestrator.ports import DeliveryKind, Tx

_RECALLABLE = (UpdateState.OFFERED, UpdateState.ACCEPTED, UpdateState.DOWNLOADED)
_NOT_BEGUN = frozenset(
    {UpdateState.PENDING, UpdateState.UNREACHED, UpdateState.REFUSED, UpdateState.RECALLED, UpdateState.OFFERED}
)


def carry_out(tx: Tx, rollout: Rollout, effect: machine.Effect, now: float) -> None:
    """Carry out one effect; `Open` and `Prepare` are long and belong to the conductor."""
    match effect:
        case machine.Offer(count):
            offer(tx, rollout, count, now)
        case machine.VoidQueued():
            withdraw(tx, rollout, now)
        case machine.Recall():
            recall(tx, rollout, tx.updates_in(rollout.id, _RECALLABLE), now)
        case machine.Return():
            recalled = tx.updates_in(rollout.id, (UpdateState.RECALLED,))
            fold(tx, [(item, Fact(FactKind.RETURN)) for item in recalled], now, Recorded())
        case _:
            raise AssertionError(f"{effect} is not carried out in one transaction")


def offer(tx: Tx, rollout: Rollout, count: int, now: float) -> int:
    """Offer the release to the next pending devices; returns how many there were."""
    chosen = tx.pending(rollout.id, count)
    offered = fold(tx, [(item, Fact(FactKind.OFFER)) for item in chosen], now, Recorded())
    push = rollout.plan.delivery is not Delivery.POLL
    tx.plan(DeliveryKind.INSTALL, [offered[item.id] for item in chosen], rollout.version, now, push=push)
    return len(chosen)


def withdraw(tx: Tx, rollout: Rollout, now: float) -> None:
    """Void queued triggers; devices that were never exposed to one are pending again."""
    found = tx.updates(tx.withdraw(rollout.id))
    fold(tx, [(item, Fact(FactKind.WITHDRAW)) for item in found.values()], now, Recorded())


def recall(tx: Tx, rollout: Rollout, updates: Sequence[Update], now: float) -> None:
    """Recall devices that were offered the release and have not installed it."""
    recalled = fold(tx, [(item, Fact(FactKind.RECALL)) for item in updates], now, Recorded())
    tx.plan(DeliveryKind.CANCEL, [recalled[item.id] for item in updates], rollout.version, now, push=True)


def open_members(tx: Tx, rollout: Rollout, members: Sequence[Member], rel: int, now: float) -> int:
    """Take devices into the current stage and supersede what they have not begun elsewhere.

    Returns:
        How many of them are new in this rollout.
    """
    opened = tx.open_updates(rollout, members, rel, now)
    tx.change_tallies(rollout.id, update_machine.tally_changes((None, item) for item in opened))
    _supersede(tx, rollout, opened, now)
    return len(opened)


def _supersede(tx: Tx, rollout: Rollout, opened: Sequence[Update], now: float) -> None:
    """The newest rollout owns a device: what it has not begun elsewhere is closed, in either direction."""
    live = [
        item
        for item in tx.updates_of([item.device_id for item in opened], _NOT_BEGUN | IN_FLIGHT)
        if item.rollout_id != rollout.id
    ]
    owned = {item.device_id for item in live if item.rollout_id > rollout.id}
    older = [item for item in live if item.rollout_id < rollout.id and item.state in _NOT_BEGUN]
    closed = [*older, *(item for item in opened if item.device_id in owned)]
    fold(tx, [(item, Fact(FactKind.SUPERSEDE)) for item in closed], now, Recorded())
    exposed = [item for item in older if item.state is UpdateState.OFFERED]
    tx.plan(DeliveryKind.CANCEL, exposed, rollout.version, now, push=True)
