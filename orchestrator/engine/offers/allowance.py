"""How many devices may be offered a release now: the core's blast ceiling and its budget over what the store counted.

Rules:
- Every offer is booked in the transaction that makes it, so that a restart forgets none.
- Who decides and who explains ask here, and get the same answer.
"""

from __future__ import annotations

from collections import Counter

from orchestrator.core import rollout as machine
from orchestrator.core.judging import judgement
from orchestrator.core.judging.outside import Outside
from orchestrator.core.model import Rollout, Tally, Urgency
from orchestrator.core.pace import budget, ceiling
from orchestrator.core.pace.budget import Slots
from orchestrator.core.pace.ceiling import Ceiling, Room
from orchestrator.core.rollout import Decision, Offer
from orchestrator.engine.offers import holds
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


def slots(tx: Tx, rollout: Rollout, limits: Ceiling) -> Slots:
    """Return which slots of the fleet the budget leaves a rollout."""
    taken: Counter[Urgency] = Counter()
    for rollout_id, count in tx.in_flight().items():
        found = rollout if rollout_id == rollout.id else tx.rollout(rollout_id)
        assert found is not None, "rollouts are never deleted"
        taken[found.plan.urgency] += count
    return budget.slots(limits.budget, rollout.plan.urgency, taken)


def most(tx: Tx, rollout: Rollout, limits: Ceiling, now: float) -> int:
    """Return how many devices a rollout may offer its release now, by the ceiling and by the budget."""
    return min(room(tx, limits, now, warranted(tx, rollout)).devices, slots(tx, rollout, limits).devices)


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


def outside_of(tx: Tx, rollout: Rollout) -> Outside:
    """Return what is known besides tallies: what a service answered for the current stage, and an outage."""
    if rollout.phase not in machine.JUDGED or not rollout.stages:
        return Outside()
    asked = judgement.gate_of(rollout) is not None
    return Outside(tx.gate_answer(rollout.id, rollout.stage) if asked else None, tx.outage())


def decide(tx: Tx, rollout: Rollout, tally: Tally, now: float, limits: Ceiling, *, hearing: bool) -> Decision:
    """Decide what evidence, time, the budget, the ceiling and what holds devices ask for; see `judgement.step`."""
    decision = judgement.step(rollout, tally, now, hearing=hearing, outside=outside_of(tx, rollout))
    if not any(isinstance(effect, Offer) for effect in decision.effects):
        return decision
    within = budget.hold(decision, slots(tx, rollout, limits))
    below = ceiling.hold(within, room(tx, limits, now, warranted(tx, rollout)), now)
    return holds.decide(tx, below, now) if any(isinstance(effect, Offer) for effect in below.effects) else below
