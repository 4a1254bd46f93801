"""When a device may be updated: windows of its own wall clock, and freezes.

Rules:
- A window is open while the wall clock of the device shows a time within it. What the clock skips in spring is open for
  no time; what it shows twice in autumn is open twice.
- A window that ends no later than it begins ends on the next day, and belongs to the day on which it begins.
- Within a freeze, whole days of the device, nothing is open. Without any window everything else is.
- A zone is data: when its offset from UTC changes, and to what. Reading it from a database is not done here.
- Devices are many, zones are few: ask once for each zone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.core.pace.requirement import Unmet
from orchestrator.core.reason import Reason

DAY_S = 86_400
HORIZON_S = 400 * DAY_S
"""How far ahead a change is looked for."""

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY = frozenset(range(7))
_FIRST_WEEKDAY = 3  # day 0, the first of January 1970, was a Thursday


class Shift(NamedTuple):
    """A change of the wall clock.

    Attributes:
        at: from when on.
        offset_s: what the wall clock then shows more than UTC.
    """

    at: float
    offset_s: int


@dataclass(frozen=True, slots=True)
class Zone:
    """The wall clock of some place.

    Attributes:
        name: its name in the time zone database.
        shifts: changes, in order, at least one; the first holds for all time before too, the last for all after.
    """

    name: str
    shifts: tuple[Shift, ...]

    def local(self, at: float) -> float:
        """Return what the wall clock shows, in seconds since it showed the beginning of 1970."""
        place = bisect_right(self.shifts, at, key=lambda shift: shift.at)
        return at + self.shifts[max(place - 1, 0)].offset_s


UTC = Zone("UTC", (Shift(0.0, 0),))


@dataclass(frozen=True, slots=True)
class Window:
    """A time of day.

    Attributes:
        begins_s: seconds after midnight by the wall clock, below a day.
        ends_s: the same for the end, at most a day; not after `begins_s` for a window that crosses midnight.
        days: weekdays on which it begins, Monday is 0.
    """

    begins_s: int
    ends_s: int
    days: frozenset[int] = EVERY_DAY


@dataclass(frozen=True, slots=True)
class Freeze:
    """Days on which nothing is updated.

    Attributes:
        first_day: first day by the wall clock, counted from the first of January 1970.
        last_day: last day, itself included.
        why: what is going on then, for people.
    """

    first_day: int
    last_day: int
    why: str


@dataclass(frozen=True, slots=True)
class Windows:
    """When devices may be updated; always, unless said otherwise.

    Attributes:
        windows: open if any of them is; empty for always.
        freezes: closed if any of them holds.
        fallback: name of the zone of devices whose own is not known.
    """

    windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    fallback: str = "UTC"


def is_open(windows: Windows, zone: Zone, now: float) -> bool:
    """Say whether a device of this zone may be updated now."""
    return _opens(windows, zone.local(now))


def next_change(windows: Windows, zone: Zone, now: float) -> float | None:
    """Return when `is_open` changes next, None if it does not within `HORIZON_S`."""
    present = is_open(windows, zone, now)
    moments = _moments(_marks(windows), zone, now)
    return next((at for at in moments if _opens(windows, zone.local(at)) is not present), None)


def closed(windows: Windows, zone: Zone, now: float) -> Unmet | None:
    """Return why a device of this zone may not be updated now, and until when; None if it may."""
    local = zone.local(now)
    if _opens(windows, local):
        return None
    until = next_change(windows, zone, now)
    frozen = next((freeze for freeze in windows.freezes if _holds(freeze, local)), None)
    code, text = ("freeze", f"is frozen: {frozen.why}") if frozen else ("window", "is outside its windows")
    return Unmet(Reason(code, f"{text}; {_when(zone, until, now)}"), until)


def _opens(windows: Windows, local: float) -> bool:
    if any(_holds(freeze, local) for freeze in windows.freezes):
        return False
    return not windows.windows or any(_shows(window, local) for window in windows.windows)


def _holds(freeze: Freeze, local: float) -> bool:
    return freeze.first_day <= local // DAY_S <= freeze.last_day


def _shows(window: Window, local: float) -> bool:
    day, second = divmod(local, DAY_S)
    today, yesterday = _weekday(day) in window.days, _weekday(day - 1) in window.days
    if window.begins_s < window.ends_s:
        return today and window.begins_s <= second < window.ends_s
    return (today and second >= window.begins_s) or (yesterday and second < window.ends_s)


def _weekday(day: float) -> int:
    return int(day + _FIRST_WEEKDAY) % 7


def _marks(windows: Windows) -> list[int]:
    """Return the times of day at which anything can change by the wall clock alone."""
    marks = {mark % DAY_S for window in windows.windows for mark in (window.begins_s, window.ends_s)}
    if windows.freezes or windows.windows:
        marks.add(0)  # a window may be open on one day and not on the next
    return sorted(marks)


def _moments(marks: list[int], zone: Zone, now: float) -> Iterator[float]:
    """Yield, in order, every moment after `now` at which a window can open or close."""
    ends = [shift.at for shift in zone.shifts[1:]]
    for number, shift in enumerate(zone.shifts):
        begin = shift.at if number else now
        end = min(ends[number] if number < len(ends) else now + HORIZON_S, now + HORIZON_S)
        if not marks or end <= now or begin >= end:
            continue
        begin = max(begin, now)
        if begin > now:
            yield begin
        first_day = int((begin + shift.offset_s) // DAY_S)
        last_day = int((end + shift.offset_s) // DAY_S)
        for day in range(first_day, last_day + 1):
            for mark in marks:
                at = float(day * DAY_S + mark - shift.offset_s)
                if begin < at < end:
                    yield at


def _when(zone: Zone, until: float | None, now: float) -> str:
    if until is None:
        return "opens at no time within 400 days"
    day, second = divmod(zone.local(until), DAY_S)
    clock = f"{WEEKDAYS[_weekday(day)]} {int(second) // 3600:02}:{int(second) // 60 % 60:02}"
    days = (until - now) / DAY_S
    return f"opens {clock} in {zone.name}" + (f", in {days:.0f} days" if days > 6 else "")
