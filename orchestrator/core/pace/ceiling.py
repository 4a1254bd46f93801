"""The blast ceiling: how many devices may be offered a release within one hour, over all rollouts.

Rules:
- Whatever goes wrong, a release, a plan, an operator, reaches no more devices per hour than this; only a warrant
  lets a rollout go beyond, by the devices that it names, whatever others were offered in the hour.
- Offers are counted by minute, and a minute counts until an hour after its end: the window is between 60 and 61
  minutes long, never shorter.
- A clock that is set back forgets nothing: offers of minutes that are still to come count as of now, and those that
  ended counting not long before count again.
- A trigger that is given again for the same offer is no further offer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core.model import Reason
from orchestrator.core.pace.budget import Budget
from orchestrator.core.reason import offered_more
from orchestrator.core.rollout import Decision, Offer

WINDOW_S = 3600.0
GRAIN_S = 60.0
KEEP_S = 4 * WINDOW_S
"""Offers are kept for so long, although they count no more: a clock that ran ahead may be set back."""

HELD = "ceiling"
"""Code of the reason of a rollout that waits for room."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What all rollouts together may do: what may be offered per hour, and what may be in flight.

    Attributes:
        share: of the registered devices, from 0 to 1.
        floor: devices that are always allowed: a share of a small fleet would be too few to ever finish.
        budget: slots that may be taken at once.
    """

    share: float = 0.2
    floor: int = 500
    budget: Budget = field(default_factory=Budget)

    def limit(self, fleet: int, warranted: int = 0) -> int:
        """Return how many devices may be offered a release per hour.

        Args:
            fleet: registered devices.
            warranted: devices that a warrant allows the asking rollout, 0 without one.
        """
        return max(self.floor, math.floor(self.share * fleet)) + warranted


STANDARD = Ceiling()


@dataclass(frozen=True, slots=True)
class Room:
    """What the ceiling leaves.

    Attributes:
        limit: devices per hour.
        fleet: registered devices.
        spent: devices that were offered a release within the hour.
        opens_at: when there will be room; None where there is some.
    """

    limit: int
    fleet: int
    spent: int
    opens_at: float | None

    @property
    def devices(self) -> int:
        """How many devices may be offered a release now."""
        return max(self.limit - self.spent, 0)


def counted(offers: Mapping[int, int], now: float) -> dict[int, int]:
    """Return the offers by minute that still count, those of minutes to come as of now."""
    present = int(now // GRAIN_S)
    # `_ends_counting_at`, written out: a rollout that waits for room asks this at every report.
    kept = {minute: count for minute, count in offers.items() if (minute + 1) * GRAIN_S + WINDOW_S > now}
    to_come = [minute for minute in kept if minute > present]
    if to_come:
        kept[present] = kept.get(present, 0) + sum(kept.pop(minute) for minute in to_come)
    return kept


def book(offers: Mapping[int, int], count: int, now: float) -> dict[int, int]:
    """Return the offers by minute after `count` more."""
    booked = Counter(counted(offers, now))
    booked[int(now // GRAIN_S)] += count
    booked.update(
        {minute: number for minute, number in offers.items() if 0.0 <= now - _ends_counting_at(minute) < KEEP_S}
    )
    return {minute: number for minute, number in booked.items() if number}


def moved(offers: Mapping[int, int], by_s: float, is_older: Callable[[float], bool]) -> dict[int, int]:
    """Return the offers by minute after the clock was set, so that each counts for as long as it would have.

    Args:
        offers: as they were booked.
        by_s: by how much the clock was set; negative for back.
        is_older: says whether a time was taken before that.
    """
    found: Counter[int] = Counter()
    for minute, count in offers.items():
        found[minute + math.ceil(by_s / GRAIN_S) if is_older(minute * GRAIN_S) else minute] += count
    return dict(found)


def room(limit: int, fleet: int, offers: Mapping[int, int], now: float) -> Room:
    """Return what the ceiling leaves.

    Args:
        limit: devices per hour.
        fleet: registered devices.
        offers: devices that were offered a release, by minute since the epoch.
        now: present time.
    """
    kept = counted(offers, now)
    spent = left = sum(kept.values())
    if spent < limit:
        return Room(limit, fleet, spent, None)
    opens_at = None
    for minute in sorted(kept):
        left -= kept[minute]
        opens_at = _ends_counting_at(minute)
        if left < limit:
            break
    return Room(limit, fleet, spent, opens_at)


def hold(decision: Decision, left: Room, now: float) -> Decision:
    """Return the decision with no more offers than there is room for; without room it says so, and when there will be.

    Args:
        decision: what the rollout wants.
        left: what the ceiling leaves.
        now: present time.
    """
    wanted = sum(effect.count for effect in decision.effects if isinstance(effect, Offer))
    if wanted <= left.devices:
        return decision
    others = tuple(effect for effect in decision.effects if not isinstance(effect, Offer))
    if left.devices:
        text = f"{offered_more(left.devices)}; the ceiling allows {wanted - left.devices} later"
        return replace(decision, effects=(*others, Offer(left.devices)), reason=Reason(decision.reason.code, text))
    return replace(decision, effects=others, reason=Reason(HELD, _text(left, now)), wake_at=left.opens_at)


def _ends_counting_at(minute: int) -> float:
    return (minute + 1) * GRAIN_S + WINDOW_S


def _text(left: Room, now: float) -> str:
    text = f"waits for the ceiling: {left.limit:,} of {left.fleet:,} devices per hour"
    if left.opens_at is None:
        return text
    return f"{text}; room in {math.ceil((left.opens_at - now) / 60)} min"
