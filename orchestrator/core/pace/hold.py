"""Why a device that could be offered the release is not offered it now, and when to look at it again.

Rules:
- All that holds a device is named at once: its age, hours, spread, requirements, consent.
- What is urgent overrides hours and consent, never what the device must be able to do.
- A device is looked at again when the first of its reasons may end, and when it says something new; while its hours are
  closed it is not looked at before they open.
- A user may put an update off for as long as a plan lets all deferrals last, counted from when the device was taken in:
  what it says of itself by turns makes no deferral new.
- Nobody is waited for longer than for an answer because of what it says of itself, known end or not, for it may say the
  same for ever; then it is unreached, and comes back when nothing holds it any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.core.model import Plan, Urgency
from orchestrator.core.pace import ramp, requirement, window
from orchestrator.core.pace.requirement import Condition, ConsentRule, Standing, Unmet, Wish
from orchestrator.core.pace.window import Zone
from orchestrator.core.reason import Reason

HELD = "held"
"""Code of the reason of a rollout all of whose waiting devices are held."""

JITTER = "jitter"
HOURS = frozenset({"window", "freeze"})
OF_TIME = HOURS | {JITTER}
"""Codes of what time alone ends: nothing that a device says changes it."""
_ENDS = OF_TIME | {requirement.DEFERRED}
"""Codes of what is sure to end: a plan says how often and how long an update may be put off."""

LOOK_AGAIN_S = 6 * 3600.0
"""A device that is held for no known time is looked at this often, whatever it says."""
SOONEST_S = 1.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a device said of itself, and its user of the next update.

    Attributes:
        condition: what it said of itself.
        wish: what its user said.
        wish_rel: release counter that it ran then; what was said of one update does not hold for the next.
        deferred_at: when the user put it off last.
        standing: by which word the user agrees to every update, None for none.
    """

    condition: Condition = field(default_factory=Condition)
    wish: Wish = field(default_factory=Wish)
    wish_rel: int = 0
    deferred_at: float = 0.0
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that waits for an offer.

    Attributes:
        device_id: the device.
        attempt: number of the attempt that it would begin.
        since: since when it waits.
        rel: release counter that it runs.
        shut: why the hours of its place are closed, None while they are open; devices are many, places are few.
        situation: what it said.
        size_bytes: size of the artifact that it would get.
        unfit: why it may not have the release as it is, such as being too old to jump to it; None if it may.
    """

    device_id: str
    attempt: int
    since: float
    rel: int
    shut: Unmet | None
    situation: Situation
    size_bytes: int
    unfit: Reason | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """What follows from what holds a device.

    Attributes:
        reasons: all that holds it, at least one.
        look_at: when it is looked at again, unless it says something new before.
        unreached: whether it was waited for long enough.
    """

    reasons: tuple[Unmet, ...]
    look_at: float
    unreached: bool

    @property
    def code(self) -> str:
        """The first reason."""
        return self.reasons[0].reason.code

    @property
    def has_no_end(self) -> bool:
        """Whether nothing that holds it is sure to end: that depends on what the device, or its user, says."""
        return all(item.reason.code not in _ENDS for item in self.reasons)

    @property
    def passes_at(self) -> float | None:
        """When nothing holds it any more unless it says something new before, None where nobody knows."""
        ends = [item.until for item in self.reasons if item.until is not None]
        return max(self.look_at, *ends) if len(ends) == len(self.reasons) else None  # not all when a window opens


def judge(plan: Plan, key: bytes, device: Candidate, now: float) -> Hold | None:
    """Return what holds a device, None if it may be offered the release.

    Args:
        plan: the plan.
        key: secret of the rollout, which spreads the devices.
        device: the device.
        now: present time.
    """
    reasons = tuple(_reasons(plan, key, device, now))
    if not reasons:
        return None
    given_up_at = device.since + plan.deadlines.accept_s
    found = Hold(reasons, _look_at(plan, key, device, reasons, now), unreached=False)
    if found.has_no_end:
        found = replace(found, look_at=min(found.look_at, given_up_at), unreached=now >= given_up_at)
    return replace(found, look_at=max(found.look_at, now + SOONEST_S))


def overrides(plan: Plan) -> list[str]:
    """Return what the urgency of a plan overrides, in words."""
    if not plan.is_urgent:
        return []
    soaks = [f"{stage.soak_s:g} s" for stage in plan.stages if stage.soak_s]
    words = (
        (soaks and plan.urgency is Urgency.EMERGENCY, f"soaks of {', '.join(soaks)}"),
        (plan.windows.windows, "windows"),
        (plan.windows.freezes, "freezes"),
        (plan.consent.consent is requirement.Consent.ASK, "consent"),
    )
    return [word for given, word in words if given]


def shut(plan: Plan, zone: Zone, now: float) -> Unmet | None:
    """Return why devices of a zone may not begin at this hour, None if they may."""
    return None if plan.is_urgent else window.closed(plan.windows, zone, now)


def closes_at(plan: Plan, zone: Zone, now: float) -> float | None:
    """Return when devices of a zone may not begin any more: now if they may not, None if no end is in sight."""
    if plan.is_urgent or not (plan.windows.windows or plan.windows.freezes):
        return None
    return window.next_change(plan.windows, zone, now) if window.is_open(plan.windows, zone, now) else now


def _reasons(plan: Plan, key: bytes, device: Candidate, now: float) -> Iterator[Unmet]:
    if device.unfit is not None:
        yield Unmet(device.unfit, None)
    if device.shut is not None:
        yield device.shut
    if plan.jitter_s and (until := device.since + _delay_s(plan, key, device)) > now:
        yield Unmet(Reason(JITTER, "its offer is spread over time with those of the others"), until)
    yield from requirement.unmet(plan.require, device.situation.condition, device.size_bytes, now)
    if not plan.is_urgent and (waits := requirement.awaits(plan.consent, _wish(plan.consent, device), now)):
        yield waits


def _wish(rule: ConsentRule, device: Candidate) -> Wish:
    """Return what the user said of this update, as far as the rule lets it count."""
    wish = device.situation.wish
    if device.situation.standing is not None:
        return Wish(agreed=True)
    if device.situation.wish_rel != device.rel:
        return Wish()
    if wish.deferred_until is None or wish.deferrals > rule.deferrals:
        return Wish(wish.agreed)
    longest = (device.situation.deferred_at + rule.longest_s, device.since + rule.deferrals * rule.longest_s)
    return replace(wish, deferred_until=min(wish.deferred_until, *longest))


def _look_at(plan: Plan, key: bytes, device: Candidate, reasons: Sequence[Unmet], now: float) -> float:
    if device.shut is not None and device.shut.until is not None:
        return device.shut.until + _delay_s(plan, key, device)  # a window that opens lets nobody in as a crowd
    return min((item.until for item in reasons if item.until is not None), default=now + LOOK_AGAIN_S)


def _delay_s(plan: Plan, key: bytes, device: Candidate) -> float:
    return ramp.delay_s(key, device.device_id, device.attempt, plan.jitter_s)
