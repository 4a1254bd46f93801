"""Windows against an oracle that asks `datetime` minute by minute, in every zone there is and around every change."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.pace import window
from orchestrator.core.pace.window import (
    DAY_S,
    HORIZON_S,
    Freeze,
    Shift,
    Window,
    Windows,
    Zone,
    closed,
    is_open,
    next_change,
)
from orchestrator.plans.zones import zone

ODD = (
    "Australia/Lord_Howe",  # half an hour of summer time
    "Pacific/Apia",  # left a whole day out in 2011
    "Asia/Kathmandu",  # 5:45
    "Atlantic/Azores",  # changes at midnight
    "Africa/Casablanca",  # summer time backwards, by the moon
    "America/St_Johns",
    "Antarctica/Troll",  # two hours at once
    "Asia/Gaza",
    "America/Santiago",  # the clock skips midnight
    "Pacific/Kiritimati",
    "Europe/Berlin",
    "UTC",
)
ALL = sorted(zoneinfo.available_timezones())
LONGEST_MINUTES = 3 * 24 * 60


def epoch(text: str, name: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name), fold=fold).timestamp()


def day_number(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def shown(windows: Windows, name: str, at: float) -> bool:
    """Say by the calendar whether a window is open; nothing here is shared with the code."""
    clock = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(name))
    for freeze in windows.freezes:
        if freeze.first_day <= (clock.date() - date(1970, 1, 1)).days <= freeze.last_day:
            return False
    if not windows.windows:
        return True
    second = clock.hour * 3600 + clock.minute * 60 + clock.second
    for item in windows.windows:
        overnight = item.ends_s <= item.begins_s
        if clock.weekday() in item.days and item.begins_s <= second and (overnight or second < item.ends_s):
            return True
        if overnight and (clock - timedelta(days=1)).weekday() in item.days and second < item.ends_s:
            return True
    return False


times = st.integers(0, 24 * 60 - 1).map(lambda minute: minute * 60)
one_window = st.builds(
    Window,
    begins_s=times,
    ends_s=st.integers(0, 24 * 60).map(lambda minute: minute * 60),
    days=st.frozensets(st.integers(0, 6), min_size=1),
)


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, int]:
    """Draw a zone, and a minute that is often near a change of its clock."""
    name = draw(st.sampled_from(ODD) | st.sampled_from(ALL))
    at = draw(st.integers(1_200_000_000, 2_000_000_000))
    if name == "Pacific/Apia" and draw(st.booleans()):
        at = int(epoch("2011-12-28T00:00"))
    near = draw(st.booleans())
    shifts = [int(shift.at) for shift in zone(name, at).shifts[1:]]
    if shifts and near:
        at = draw(st.sampled_from(shifts)) - draw(st.integers(-90_000, 180_000))
    return name, at // 60 * 60


@st.composite
def schedules(draw: st.DrawFn, at: int) -> Windows:
    first = at // DAY_S + draw(st.integers(-2, 3))
    freezes = draw(
        st.lists(st.builds(Freeze, st.just(first), st.integers(first, first + 2), st.just("fair")), max_size=1)
    )
    return Windows(tuple(draw(st.lists(one_window, max_size=3))), tuple(freezes))


@given(st.data())
def test_every_minute_is_as_the_calendar_says(data: st.DataObject) -> None:
    name, at = data.draw(moments())
    windows = data.draw(schedules(at))
    place = zone(name, at)
    present = shown(windows, name, at)
    assert is_open(windows, place, at) is present
    change = next_change(windows, place, at)
    minutes = (at + 60 * number for number in range(1, LONGEST_MINUTES))
    expected = next((float(minute) for minute in minutes if shown(windows, name, minute) is not present), None)
    if expected is None:
        assert change is None or change >= at + 60 * LONGEST_MINUTES
    else:
        assert change == expected


@given(moments(), one_window, st.floats(0, 60, exclude_max=True))
def test_a_change_is_exact_to_the_second_and_is_the_first_one(
    moment: tuple[str, int], item: Window, later_s: float
) -> None:
    name, minute = moment
    now = minute + later_s
    windows, place = Windows((item,)), zone(name, now)
    change = next_change(windows, place, now)
    assume(change is not None)
    assert change is not None and now < change <= now + HORIZON_S
    assert is_open(windows, place, change) is not is_open(windows, place, now)
    assert is_open(windows, place, change - 0.5) is is_open(windows, place, now) or change - 0.5 < now


@pytest.mark.parametrize("name", ODD)
def test_around_every_change_of_an_odd_zone(name: str) -> None:
    for now in (epoch("2011-06-01"), epoch("2026-11-21")):
        place = zone(name, now)
        for shift in place.shifts[1:]:
            for begins_s in range(0, DAY_S, 3 * 3600):
                windows = Windows((Window(begins_s, (begins_s + 5400) % DAY_S),))
                for at in range(int(shift.at) - 7200, int(shift.at) + 7200, 900):
                    assert is_open(windows, place, at) is shown(windows, name, at)


def test_what_the_clock_skips_is_open_for_no_time_and_what_it_shows_twice_is_open_twice() -> None:
    windows = Windows((Window(2 * 3600 + 900, 2 * 3600 + 2700),))  # 02:15 to 02:45
    spring = epoch("2027-03-28T00:00", "Europe/Berlin")
    assert next_change(windows, zone("Europe/Berlin", spring), spring) == epoch("2027-03-29T02:15", "Europe/Berlin")
    changes, at = [], epoch("2027-10-31T00:00", "Europe/Berlin")
    for _ in range(5):
        following = next_change(windows, zone("Europe/Berlin", spring), at)
        assert following is not None
        changes.append(at := following)
    night = [epoch(f"2027-10-31T02:{minute}", "Europe/Berlin", fold) for fold in (0, 1) for minute in (15, 45)]
    assert changes == [*night, epoch("2027-11-01T02:15", "Europe/Berlin")]


def test_a_clock_that_leaves_a_day_out() -> None:
    friday = Windows((Window(0, DAY_S, frozenset({4})),))
    now = epoch("2011-12-29T12:00", "Pacific/Apia")
    assert next_change(friday, zone("Pacific/Apia", now), now) == epoch("2012-01-06T00:00", "Pacific/Apia")


def test_a_change_of_the_clock_can_itself_open_a_window() -> None:
    place = Zone("Test/Jump", (Shift(0.0, 0), Shift(3600.0, 7200)))
    windows = Windows((Window(2 * 3600, 4 * 3600),))
    assert next_change(windows, place, 0.0) == 3600.0
    assert next_change(windows, place, 3599.5) == 3600.0
    assert next_change(windows, place, 3600.0) == 2 * 3600.0


def test_before_the_first_change_and_after_the_last_its_offset_holds() -> None:
    place = Zone("Test/Short", (Shift(1000.0, 60), Shift(2000.0, 120)))
    assert [place.local(at) for at in (0.0, 1500.0, 5000.0)] == [60.0, 1560.0, 5120.0]


def test_without_windows_it_is_always_open_and_never_changes() -> None:
    assert is_open(Windows(), window.UTC, 0.0)
    assert next_change(Windows(), window.UTC, 0.0) is None
    assert closed(Windows(), window.UTC, 0.0) is None


def test_a_window_that_ends_when_it_begins_lasts_a_day() -> None:
    windows = Windows((Window(3600, 3600),))
    assert next_change(windows, window.UTC, 0.0) is None and is_open(windows, window.UTC, 1.0)
    monday = Windows((Window(3600, 3600, frozenset({0})),))
    opens = next_change(monday, window.UTC, 0.0)
    assert opens == 4 * DAY_S + 3600 and next_change(monday, window.UTC, opens) == 5 * DAY_S + 3600


def test_a_freeze_holds_whole_days_of_the_device_and_beats_every_window() -> None:
    frozen = Windows((), (Freeze(day_number("2026-12-24"), day_number("2026-12-26"), "the holidays"),))
    now = epoch("2026-12-25T10:00", "Pacific/Kiritimati")
    held = closed(frozen, zone("Pacific/Kiritimati", now), now)
    assert held is not None and held.until == epoch("2026-12-27T00:00", "Pacific/Kiritimati")
    assert held.reason.code == "freeze"
    assert held.reason.text == "is frozen: the holidays; opens Sun 00:00 in Pacific/Kiritimati"
    before = epoch("2026-12-23T23:59:59", "Pacific/Kiritimati")
    assert next_change(frozen, zone("Pacific/Kiritimati", now), before) == before + 1


def test_why_it_is_closed_and_when_it_opens() -> None:
    nights = Windows((Window(22 * 3600, 4 * 3600, frozenset({4})),))
    now = epoch("2026-11-21T04:00", "Europe/Berlin")  # a Saturday
    held = closed(nights, zone("Europe/Berlin", now), now)
    assert held is not None and held.until == epoch("2026-11-27T22:00", "Europe/Berlin")
    assert (held.reason.code, held.reason.text) == (
        "window",
        "is outside its windows; opens Fri 22:00 in Europe/Berlin, in 7 days",
    )
    assert closed(nights, zone("Europe/Berlin", now), now - 1) is None


def test_what_never_opens_says_so() -> None:
    never = Windows((), (Freeze(0, 10**6, "the device is retired"),))
    held = closed(never, window.UTC, 0.0)
    assert held is not None and held.until is None
    assert held.reason.text == "is frozen: the device is retired; opens at no time within 400 days"
