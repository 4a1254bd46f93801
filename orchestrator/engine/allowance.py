"""How many devices may be offered a release now: the core's blast ceiling over what the store counted.

Rules:
- Every offer is booked in the transaction that makes it, so that a restart forgets none.
- Who decides and who explains ask here, and get the same answer.
"""

from __future__ import annotations

from orchestrator.core import ceiling
from orchestrator.core import rollout as machine
from orchestrator.core.ceiling import Ceiling, Room
from orchestrator.core.model import Rollout, Tally, Urgency
from orchestrator.core.rollout import Decision, Offer
from orchestrator.ports import Tx
from orchestrator.verifier import COSIGN
from orchestrator.verifier.fields import decode64, read_claims


def room(tx: Tx, limits: Ceiling, now: float, warranted: int = 0) -> Room:
    """Return what the ceiling leaves.

    Args:
        tx: the transaction.
        limits: the ceiling.
        now: present time.
        warranted: devices that a warrant allows the asking rollout, 0 without one.
    """
    fleet = tx.fleet_size()
    return ceiling.room(limits.limit(fleet, warranted), fleet, tx.offers(), now)


def warranted(tx: Tx, rollout: Rollout) -> int:
    """Return how many devices the warrant of an emergency allows, 0 without one. It was judged when it was stored."""
    lines = tx.warrant(rollout.id) if rollout.plan.urgency is Urgency.EMERGENCY else None
    if lines is None:
        return 0
    most: int = read_claims(decode64(lines.split(b".")[1]), COSIGN)["most"]
    return most


def book(tx: Tx, count: int, now: float) -> None:
    """Count `count` devices as offered a release now; with none, take note of the present time alone."""
    before = tx.offers()
    after = ceiling.book(before, count, now)
    if after != before:
        tx.save_offers(after)


def decide(tx: Tx, rollout: Rollout, tally: Tally, now: float, limits: Ceiling, *, hearing: bool) -> Decision:
    """Decide what evidence, time and the ceiling ask for; see `core.rollout.step`."""
    decision = machine.step(rollout, tally, now, hearing=hearing)
    if not any(isinstance(effect, Offer) for effect in decision.effects):
        return decision
    return ceiling.hold(decision, room(tx, limits, now, warranted(tx, rollout)), now)
