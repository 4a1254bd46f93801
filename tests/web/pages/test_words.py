"""Numbers and times as words."""

from __future__ import annotations

import pytest

from orchestrator.web.pages import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ]
    + [(86_400, "1 d"), (86_460, "1 d"), (-120, "2 min")],
)
def test_a_span_has_its_two_largest_units(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_a_time_is_before_now_or_after_it() -> None:
    assert words.ago(100, 160) == "1 min ago"
    assert words.ago(160, 100) == "in 1 min"
    assert words.ago(100, 100.4) == "now"
    assert words.ago(None, 100) == "never"


def test_numbers_keep_three_digits() -> None:
    found = [words.plain(value) for value in (None, 0, 0.132, 19.96, 999.9, 1234, 1.24e9, 4e-7)]
    assert found == ["–", "0", "0.132", "20", "1e+03", "1\u202f234", "1.2×10^9", "4.0×10^-7"]
    assert words.number(1_234_567) == "1\u202f234\u202f567"
    assert words.percent(0.0251) == "2.5\u202f%"
    assert words.more(1, "failure") == "1 more failure"
    assert words.clock(0) == "1970-01-01 00:00:00"
    assert words.iso(0) == "1970-01-01T00:00:00Z"
