"""Charts: parts in proportion, lines where they belong, and no stranger's word that becomes markup."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.web.pages.charts import Axis, Dot, Part, bar, log, steps

AXIS = Axis(0.0, 100.0, "then", "now", [(0.0, "1")], log(20), "halts at 20", top=2.0, bottom=-1.0)


def widths(text: str) -> list[float]:
    return [float(found) for found in re.findall(r'width="([\d.]+)%" height="12"><title', text)]


def test_parts_are_as_wide_as_they_are_large() -> None:
    text = bar([Part("healthy", 30, "healthy"), Part("failed", 0, "failed"), Part("flight", 10, "in flight")], 80, "x")
    assert widths(text) == [37.5, 12.5]
    assert re.findall(r'x="([\d.]+)%"', text) == ["0.000", "37.500"]
    assert "<title>healthy: 30</title>" in text


@given(st.lists(st.integers(0, 10**7), max_size=6), st.integers(0, 10**7))
def test_parts_never_leave_their_bar(counts: list[int], whole: int) -> None:
    text = bar([Part("healthy", count, "x") for count in counts], whole, "x")
    assert sum(widths(text)) <= 100.0 + 0.001 * len(counts)
    ElementTree.fromstring(text)


def test_names_are_never_markup() -> None:
    for text in (bar([Part('a"', 1, "<b>")], 1, '"><script>'), steps([Dot(1, 1, "<i>")], AXIS, "calm", "<script>")):
        assert "<script" not in text
        ElementTree.fromstring(text)


def test_a_line_goes_in_steps() -> None:
    text = steps([Dot(0, 2.0), Dot(50, 0.5, "one failed"), Dot(100, 0.5)], AXIS, "calm", "E")
    [line] = re.findall(r'class="line calm" d="([^"]*)"', text)
    assert line == "M0.0 0.0H500.0V500.0H1000.0"
    assert '<circle class="mark calm" cx="50.00%" cy="50.00%" r="3.5"><title>one failed</title></circle>' in text
    assert f'y1="{100 * (2 - math.log10(20)) / 3:.2f}%"' in text


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=20))
def test_whatever_is_drawn_stays_inside(points: list[tuple[float, float]]) -> None:
    text = steps([Dot(at, value, "x") for at, value in sorted(points)], AXIS, "calm", "E")
    for number in re.findall(r"(?:M|H|V| )(-?[\d.]+)", " ".join(re.findall(r' d="([^"]*)"', text))):
        assert 0.0 <= float(number) <= 1000.0
    for number in re.findall(r'c[xy]="(-?[\d.]+)%"', text):
        assert 0.0 <= float(number) <= 100.0
    ElementTree.fromstring(text)


def test_a_chart_without_points_is_drawn_as_well() -> None:
    ElementTree.fromstring(steps([], AXIS, "calm", "E"))


def test_small_values_end_at_a_thousandth() -> None:
    assert log(0.0) == -3
    assert log(1.0) == 0
