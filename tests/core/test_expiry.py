"""What expires is told of once per threshold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.trust.expiry import DAY_S, THRESHOLDS_DAYS, Expiry, Warned, judge, threshold

END = 1_800_000_000.0


@pytest.mark.parametrize(
    ("days_left", "passed"),
    [(31, None), (30.001, None), (30, 30), (14.5, 30), (14, 14), (7, 7), (1.01, 7), (1, 1), (0.01, 1), (0, 0), (-9, 0)],
)
def test_thresholds(days_left: float, passed: int | None) -> None:
    assert threshold(END, END - days_left * DAY_S) == passed


def test_every_threshold_is_told_once_however_often_one_looks() -> None:
    told: dict[str, Warned] = {}
    days = []
    for hour in range(40 * 24):
        notices, told = judge([Expiry("broker", END)], told, END + (hour / 24 - 39) * DAY_S)
        days += [notice.threshold for notice in notices]
    assert days == [30, 14, 7, 1, 0]


def test_of_thresholds_passed_together_the_last_is_told() -> None:
    notices, told = judge([Expiry("key", END), Expiry("broker", END - 1)], {}, END - 2 * DAY_S)
    assert [(notice.expiry.name, notice.threshold) for notice in notices] == [("broker", 7), ("key", 7)]
    assert judge([Expiry("key", END)], told, END - 2 * DAY_S)[0] == []


def test_what_was_renewed_begins_anew() -> None:
    _, told = judge([Expiry("broker", END)], {}, END)
    notices, told = judge([Expiry("broker", END + 90 * DAY_S)], told, END)
    assert (notices, told) == ([], {})
    notices, _ = judge([Expiry("broker", END + 5 * DAY_S)], {"broker": Warned(END, 0)}, END)
    assert [notice.threshold for notice in notices] == [7]


def test_a_clock_that_was_set_back_tells_nothing_twice() -> None:
    _, told = judge([Expiry("broker", END)], {}, END - DAY_S)
    assert judge([Expiry("broker", END)], told, END - 10 * DAY_S) == ([], told)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=20))
def test_each_threshold_at_most_once_in_any_order_of_looks(days_left: list[float]) -> None:
    told: dict[str, Warned] = {}
    thresholds = []
    for days in days_left:
        notices, told = judge([Expiry("broker", END)], told, END - days * DAY_S)
        thresholds += [notice.threshold for notice in notices]
    assert len(thresholds) <= len(THRESHOLDS_DAYS)
    assert thresholds == sorted(set(thresholds), reverse=True)
