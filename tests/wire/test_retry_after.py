"""When to come again: both forms of the header, and whatever else may stand there."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.wire.retry_after import MAX_CHARS, wait_s

NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the date of the examples of RFC 9110."""


@pytest.mark.parametrize(
    ("text", "waits_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120\t", 120.0),
        ("0007", 7.0),
        ("9" * MAX_CHARS, float("9" * MAX_CHARS)),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        ("Sunday, 06-Nov-94 08:51:37 GMT", 120.0),
        ("Sun Nov  6 08:51:37 1994", 120.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("", 0.0),
        ("-5", 0.0),
        ("+5", 0.0),
        ("1.5", 0.0),
        ("1e9", 0.0),
        ("soon", 0.0),
        ("٣", 0.0),
        ("²", 0.0),
        ("9" * (MAX_CHARS + 1), 0.0),
        ("Sun, 06 Nov 99999 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 +9999", 0.0),
    ],
)
def test_what_a_header_asks_for(text: str, waits_s: float) -> None:
    assert wait_s(text, NOW) == waits_s


@given(st.text() | st.text("0123456789 ,:+-GMTSunNovJa", max_size=MAX_CHARS), st.floats(0, 1e11))
def test_whatever_stands_there_is_a_time_to_wait(text: str, now: float) -> None:
    found = wait_s(text, now)
    assert found >= 0
    assert math.isfinite(found)


@given(st.integers(0, 10**9))
def test_seconds_are_seconds_at_any_time(seconds: int) -> None:
    assert wait_s(str(seconds), NOW) == seconds


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)), st.integers(0, 2**33))
def test_a_date_is_waited_for(date: datetime, now: int) -> None:
    date = date.replace(microsecond=0, tzinfo=UTC)
    wanted = max(date.timestamp() - now, 0.0)
    assert wait_s(format_datetime(date, usegmt=True), now) == wanted
    if date.year >= 1000:  # C pads no years
        assert wait_s(date.strftime("%a %b %e %H:%M:%S %Y"), now) == wanted
