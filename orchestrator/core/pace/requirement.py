"""What a device must have said of itself before it is offered a release, and what its user must have agreed to.

Rules:
- Only what a device told is judged, and only while it is fresh; what was not told, or is too old, is unknown, and the
  plan says what unknown means. The device checks again before it begins: this only spares it the attempt.
- Every requirement that is not met is named at once, with the time when that may change where it can be known.
- An artifact must leave a tenth of its slot free wherever the slot is known, asked for or not. A slot never changes, so
  what was told of it never ages.
- A time that lies ahead, because a clock was set, is as fresh as can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from orchestrator.core.reason import Reason

CONSENT = "consent"
"""Code of the reason of a device whose user has not agreed."""

DEFERRED = "deferred"
"""Code of the reason of a device whose user put the update off."""

SLOT_SHARE = 0.9
"""Largest part of its slot that an artifact may take."""

Value = TypeVar("Value")


class Link(StrEnum):
    """How a device is connected."""

    WIFI = "wifi"
    ETHERNET = "ethernet"
    CELLULAR = "cellular"


class Unknown(StrEnum):
    """What a requirement means for a device that did not tell the fact, or too long ago."""

    ALLOW = "allow"
    HOLD = "hold"


class Consent(StrEnum):
    """Whether the user of a device is asked."""

    NOT_NEEDED = "not_needed"
    ASK = "ask"


class Told(NamedTuple, Generic[Value]):
    """One fact as a device told it.

    Attributes:
        value: what it said.
        at: when it said so.
    """

    value: Value
    at: float


@dataclass(frozen=True, slots=True)
class Condition:
    """What a device told of itself; None for what it never told.

    Attributes:
        battery_pct: charge of the battery, 0 to 100.
        charging: whether it is on external power.
        free_bytes: free room where a download is kept.
        slot_bytes: size of the smallest slot that an artifact is written to.
        link: how it is connected.
        metered: whether its traffic is paid for by volume.
        uptime_s: time since its boot, at the moment it told.
    """

    battery_pct: Told[int] | None = None
    charging: Told[bool] | None = None
    free_bytes: Told[int] | None = None
    slot_bytes: Told[int] | None = None
    link: Told[Link] | None = None
    metered: Told[bool] | None = None
    uptime_s: Told[float] | None = None


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a plan requires of a device; nothing unless named.

    Attributes:
        battery_pct: least charge of the battery; a device on external power needs none.
        charging: whether it must be on external power.
        free_bytes: what must be left free besides the artifact.
        links: links that will do; empty for any.
        unmetered: whether its traffic must be free.
        uptime_s: least time since its boot.
        max_age_s: age at which a fact is unknown.
        unknown: what an unknown fact means.
    """

    battery_pct: int | None = None
    charging: bool = False
    free_bytes: int | None = None
    links: frozenset[Link] = field(default_factory=frozenset)
    unmetered: bool = False
    uptime_s: float | None = None
    max_age_s: float = 86_400.0
    unknown: Unknown = Unknown.HOLD


@dataclass(frozen=True, slots=True)
class Unmet:
    """Why a device is not offered a release now.

    Attributes:
        reason: which rule holds it.
        until: when that may change; None where it cannot be known.
    """

    reason: Reason
    until: float | None = None


@dataclass(frozen=True, slots=True)
class ConsentRule:
    """What a plan wants of the user of a device.

    Attributes:
        consent: whether the user is asked.
        deferrals: how often the user may put the update off.
        longest_s: how far ahead one deferral may reach.
    """

    consent: Consent = Consent.NOT_NEEDED
    deferrals: int = 3
    longest_s: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Agreement of a user to every update, until it is taken back.

    Attributes:
        at: when it was given.
        initiator: who gave it, as the device says.
        remark: what the device adds.
    """

    at: float
    initiator: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user of a device said about one update.

    Attributes:
        agreed: whether the user agreed.
        deferred_until: when the user wants to be asked again, None if the update was not put off.
        deferrals: how often it was put off.
    """

    agreed: bool = False
    deferred_until: float | None = None
    deferrals: int = 0


def unmet(requirements: Requirements, condition: Condition, size_bytes: int, now: float) -> tuple[Unmet, ...]:
    """Return every requirement that a device does not meet.

    Args:
        requirements: what the plan requires.
        condition: what the device told.
        size_bytes: size of the artifact that it would be offered.
        now: present time.
    """
    return tuple(_judge(requirements, condition, size_bytes, now))


def awaits(rule: ConsentRule, wish: Wish, now: float) -> Unmet | None:
    """Return what is still to come from the user of a device, None if nothing is."""
    if rule.consent is Consent.NOT_NEEDED or wish.agreed:
        return None
    if wish.deferred_until is not None and now < wish.deferred_until:
        text = f"its user put the update off, {wish.deferrals} of {rule.deferrals} times"
        # A clock that was set back must not stretch a deferral beyond what the plan allows.
        return Unmet(Reason(DEFERRED, text), min(wish.deferred_until, now + rule.longest_s))
    return Unmet(Reason(CONSENT, "its user has not agreed yet"))


def _judge(wanted: Requirements, condition: Condition, size_bytes: int, now: float) -> Iterator[Unmet]:
    yield from _power(wanted, condition, now)
    yield from _room(wanted, condition, size_bytes, now)
    yield from _connection(wanted, condition, now)
    if wanted.uptime_s is not None:
        yield from _uptime(wanted, wanted.uptime_s, condition, now)


def _uptime(wanted: Requirements, least_s: float, condition: Condition, now: float) -> Iterator[Unmet]:
    uptime = _fresh(condition.uptime_s, wanted, now)
    if uptime is None:
        yield from _unknown(wanted, "uptime", "how long it has been up")
        return
    up_s = uptime.value + max(now - uptime.at, 0.0)  # a device that boots again says so
    if (until := now + least_s - up_s) > now:
        yield Unmet(Reason("uptime", f"it has been up for {up_s:.0f} s, and must be for {least_s:.0f} s"), until)


def _power(wanted: Requirements, condition: Condition, now: float) -> Iterator[Unmet]:
    charging = _fresh(condition.charging, wanted, now)
    if wanted.charging:
        if charging is None:
            yield from _unknown(wanted, "charging", "whether it is on external power")
        elif not charging.value:
            yield Unmet(Reason("charging", "it is not on external power"))
    if wanted.battery_pct is None or (charging is not None and charging.value):
        return
    battery = _fresh(condition.battery_pct, wanted, now)
    if battery is None:
        yield from _unknown(wanted, "battery", "the charge of its battery")
    elif battery.value < wanted.battery_pct:
        yield Unmet(Reason("battery", f"its battery is at {battery.value} %, and must be at {wanted.battery_pct} %"))


def _room(wanted: Requirements, condition: Condition, size_bytes: int, now: float) -> Iterator[Unmet]:
    slot = condition.slot_bytes
    if slot is not None and size_bytes > (most := int(slot.value * SLOT_SHARE)):
        text = f"the artifact has {size_bytes:,} bytes, and its slot of {slot.value:,} bytes takes at most {most:,}"
        yield Unmet(Reason("slot", text))
    if wanted.free_bytes is None:
        return
    free = _fresh(condition.free_bytes, wanted, now)
    if free is None:
        yield from _unknown(wanted, "free_space", "how much room it has")
    elif free.value < (needed := size_bytes + wanted.free_bytes):
        yield Unmet(Reason("free_space", f"it has {free.value:,} bytes free, and needs {needed:,}"))


def _connection(wanted: Requirements, condition: Condition, now: float) -> Iterator[Unmet]:
    if wanted.links:
        link = _fresh(condition.link, wanted, now)
        if link is None:
            yield from _unknown(wanted, "link", "how it is connected")
        elif link.value not in wanted.links:
            text = f"it is connected by {link.value}, and must be by {' or '.join(sorted(wanted.links))}"
            yield Unmet(Reason("link", text))
    if wanted.unmetered:
        metered = _fresh(condition.metered, wanted, now)
        if metered is None:
            yield from _unknown(wanted, "metered", "whether its traffic is paid for by volume")
        elif metered.value:
            yield Unmet(Reason("metered", "its traffic is paid for by volume"))


def _fresh(told: Told[Value] | None, wanted: Requirements, now: float) -> Told[Value] | None:
    return None if told is None or now - told.at > wanted.max_age_s else told


def _unknown(wanted: Requirements, code: str, what: str) -> Iterator[Unmet]:
    if wanted.unknown is Unknown.HOLD:
        yield Unmet(Reason(f"{code}_unknown", f"it did not say lately {what}"))
