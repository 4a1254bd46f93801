"""What is counted together, and that nothing is lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.timing import BOUNDS_S, Timing


@given(st.lists(st.floats(0, 1000)))
def test_each_bound_counts_what_took_no_longer(took: list[float]) -> None:
    timing = Timing()
    for each in took:
        timing.note(each)
    assert timing.below == [(bound, sum(each <= bound for each in took)) for bound in (*BOUNDS_S, math.inf)]
    assert timing.total_s == pytest.approx(sum(took))


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    timing = Timing((1.0,))
    timing.note(-5)
    assert timing.below == [(1.0, 1), (math.inf, 1)]
    assert timing.total_s == 0
