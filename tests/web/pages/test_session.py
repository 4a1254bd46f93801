"""Sessions: found by their cookie alone, and over after a rest, a day, or a word."""

from __future__ import annotations

import pytest

from orchestrator.errors import ForbiddenError
from orchestrator.web.pages import session as sessions
from orchestrator.web.pages.session import IDLE_S, LONGEST_S, Sessions
from tests.support.clock import Clock


def test_a_cookie_finds_its_session_and_no_other() -> None:
    known = Sessions(Clock())
    first, second = known.open("t1"), known.open("t2")
    found, other = known.find(first), known.find(second)
    assert found is not None and other is not None
    assert (found.token_id, other.token_id) == ("t1", "t2")
    assert found.secret != other.secret
    assert known.find(first + "x") is None
    assert first not in repr(vars(known))


def test_a_session_that_rests_ends() -> None:
    clock = Clock()
    known = Sessions(clock)
    value = known.open("t1")
    clock.advance(IDLE_S - 1)
    assert known.find(value)
    clock.advance(IDLE_S - 1)
    assert known.find(value, touch=False)
    clock.advance(1)
    assert known.find(value) is None


def test_a_busy_session_ends_after_a_working_day() -> None:
    clock = Clock()
    known = Sessions(clock)
    value = known.open("t1")
    for _ in range(int(LONGEST_S // 1800) - 1):
        clock.advance(1800)
        assert known.find(value)
    clock.advance(1800)
    assert known.find(value) is None


def test_one_session_too_many_ends_the_one_that_rested_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 2)
    clock = Clock()
    known = Sessions(clock)
    first = known.open("t1")
    clock.advance(1)
    second = known.open("t2")
    clock.advance(1)
    assert known.find(first)
    third = known.open("t3")
    assert [known.find(value) is not None for value in (first, second, third)] == [True, False, True]


def test_a_form_of_another_session_is_refused() -> None:
    known = Sessions(Clock())
    found, other = known.find(known.open("t1")), known.find(known.open("t1"))
    assert found is not None and other is not None
    found.check(found.secret)
    for said in ("", "ü", other.secret):
        with pytest.raises(ForbiddenError, match="another session"):
            found.check(said)


def test_a_closed_session_is_over() -> None:
    known = Sessions(Clock())
    value = known.open("t1")
    known.close(value)
    known.close(value)
    assert known.find(value) is None
