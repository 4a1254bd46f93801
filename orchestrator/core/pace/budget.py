"""The slots of all rollouts together: how many devices may be updating at once, and what is kept for urgent rollouts.

Rules:
- Rollouts that are not urgent never take the part that is reserved, so that no background rollout can starve a
  security one, however large it is and however long its devices are away.
- Urgent rollouts may take every slot. Beyond the budget goes nobody, an emergency neither: it protects what downloads
  come from.
- A slot is that of `core.update.IN_FLIGHT`; an update of a rollout that is halted or over keeps its slot until it ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core.model import Reason, Urgency
from orchestrator.core.reason import offered_more
from orchestrator.core.rollout import Decision, Offer

FULL = "budget"
"""Code of the reason of a rollout that waits for a slot of the fleet."""

URGENT = frozenset({Urgency.SECURITY, Urgency.EMERGENCY})
"""Urgencies that the reserved slots are for."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be in flight.

    Attributes:
        in_flight: devices that may be updating at once, over all rollouts.
        reserved: share of them that is kept for urgent rollouts.
    """

    in_flight: int = 50_000
    reserved: float = 0.2

    @property
    def open(self) -> int:
        """How many slots rollouts may take that are not urgent; at least one, or they would never end."""
        return max(self.in_flight - math.ceil(self.reserved * self.in_flight), 1)


@dataclass(frozen=True, slots=True)
class Slots:
    """What the budget leaves a rollout.

    Attributes:
        limit: slots that rollouts such as this one may take.
        taken: those that are taken by them, or by all where fewer than that are left.
        urgent: whether the reserved slots are open to it.
    """

    limit: int
    taken: int
    urgent: bool

    @property
    def devices(self) -> int:
        """How many devices may be offered a release now."""
        return max(self.limit - self.taken, 0)


def slots(budget: Budget, urgency: Urgency, taken: Mapping[Urgency, int]) -> Slots:
    """Return what the budget leaves.

    Args:
        budget: the budget.
        urgency: of the rollout that asks.
        taken: slots that are taken, by the urgency of their rollouts.
    """
    total = sum(taken.values())
    whole = Slots(budget.in_flight, total, urgency in URGENT)
    if urgency in URGENT:
        return whole
    part = Slots(budget.open, sum(count for each, count in taken.items() if each not in URGENT), False)
    return min(whole, part, key=lambda item: item.devices)


def hold(decision: Decision, left: Slots) -> Decision:
    """Return the decision with no more offers than there are slots for; without any it says so.

    Args:
        decision: what the rollout wants.
        left: what the budget leaves.
    """
    wanted = sum(effect.count for effect in decision.effects if isinstance(effect, Offer))
    if wanted <= left.devices:
        return decision
    others = tuple(effect for effect in decision.effects if not isinstance(effect, Offer))
    if left.devices:
        text = f"{offered_more(left.devices)}; {wanted - left.devices} wait for slots of the fleet"
        return replace(decision, effects=(*others, Offer(left.devices)), reason=Reason(decision.reason.code, text))
    kept = "" if left.urgent else " that are not kept for urgent rollouts"
    text = f"waits for a slot of the fleet: all {left.limit:,}{kept} are taken"
    return replace(decision, effects=others, reason=Reason(FULL, text), wake_at=None)
