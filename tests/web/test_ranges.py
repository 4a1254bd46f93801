"""Ranges and validators of requests: what the standard says, and nothing that a caller can break."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.web.ranges import MAX_RANGES, Span, is_held, may_be_part, spans

SIZE = 1000
MARK = '"abc"'

spec = st.tuples(st.integers(0, 2 * SIZE) | st.none(), st.integers(0, 2 * SIZE) | st.none())


@given(st.text(max_size=200), st.integers(0, 10**12))
def test_whatever_is_asked_there_are_only_bytes_that_exist(text: str, size: int) -> None:
    for field in (text, f"bytes={text}"):
        found = spans([field], size)
        for span in found or ():
            assert 0 <= span.start < span.end <= size


@given(st.lists(spec, min_size=1, max_size=MAX_RANGES), st.sampled_from(["", " ", "\t"]))
def test_the_bytes_are_those_that_the_standard_names(asked: list[tuple[int | None, int | None]], blank: str) -> None:
    words = [f"{'' if one is None else one}-{'' if other is None else other}" for one, other in asked]
    found = spans(["bytes=" + f"{blank},{blank}".join(words)], SIZE)
    if any((one is None and other is None) or _is_reversed(one, other) for one, other in asked):
        assert found is None
        return
    assert found is not None
    wanted = {at for one, other in asked for at in _bytes(one, other)}
    assert {at for span in found for at in range(span.start, span.end)} == wanted
    assert all(before.end < after.start for before, after in zip(found, found[1:], strict=False))


def _is_reversed(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and other < one


def _bytes(one: int | None, other: int | None) -> range:
    if one is None:
        assert other is not None
        return range(max(SIZE - other, 0), SIZE)
    return range(one, min(SIZE if other is None else other + 1, SIZE))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([], None),
        (["bytes=0-0"], (Span(0, 1),)),
        (["Bytes=990-"], (Span(990, SIZE),)),
        (["bytes=" + "9" * 5000 + "-"], ()),
        (["bytes=" + "0" * 5000 + "1-1"], (Span(1, 2),)),
        (["bytes=,0-0,,5-5,"], (Span(0, 1), Span(5, 6))),
        (["bytes=0-4,5-9"], (Span(0, 10),)),
        (["bytes=0-0,5000-"], (Span(0, 1),)),
        (["bytes=" + ",".join(["0-0"] * MAX_RANGES)], (Span(0, 1),)),
        (["bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1))], None),
        (["bytes=0-0", "bytes=5-5"], None),
        (["bytes=0-0\n"], None),
    ],
)
def test_single_cases(fields: list[str], found: tuple[Span, ...] | None) -> None:
    assert spans(fields, SIZE) == found


def test_of_nothing_there_is_no_part() -> None:
    assert spans(["bytes=0-"], 0) == ()
    assert spans(["bytes=-5"], 0) == ()


def test_only_the_mark_itself_lets_a_part_be_sent() -> None:
    assert may_be_part([], MARK)
    assert may_be_part([MARK], MARK)
    for field in ('"other"', f"W/{MARK}", "abc", "", "Sat, 21 Nov 2026 10:00:00 GMT", "*"):
        assert not may_be_part([field], MARK)
    assert not may_be_part([MARK, '"other"'], MARK)


def test_who_names_the_mark_has_the_bytes() -> None:
    for field in (MARK, "*", f"W/{MARK}", f'"x", {MARK}', f'"a,b",{MARK}'):
        assert is_held([field], MARK)
    for field in ("abc", '"abcd"', '"x"', "", '"', "**"):
        assert not is_held([field], MARK)
    assert not is_held([], MARK)
    assert is_held(['"x"', MARK], MARK)


@given(st.lists(st.text(max_size=50), max_size=3))
def test_validators_take_any_text(fields: list[str]) -> None:
    assert may_be_part(fields, MARK) == all(field.strip(" \t") == MARK for field in fields)
    assert is_held(fields, MARK) in (True, False)
