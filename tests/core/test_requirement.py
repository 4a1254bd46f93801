"""Requirements: each one alone at its edge, all together against a plain reading, and the wishes of users."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.pace.requirement import (
    Condition,
    Consent,
    ConsentRule,
    Link,
    Requirements,
    Told,
    Unknown,
    Wish,
    awaits,
    unmet,
)

NOW = 1_800_000_000.0
SIZE = 1_000_000
Value = TypeVar("Value")


def told(value: Value, age_s: float = 60.0) -> Told[Value]:
    return Told(value, NOW - age_s)


def held(requirements: Requirements, condition: Condition) -> dict[str, tuple[str, float | None]]:
    return {item.reason.code: (item.reason.text, item.until) for item in unmet(requirements, condition, SIZE, NOW)}


def test_nothing_is_required_unless_named() -> None:
    assert unmet(Requirements(), Condition(), SIZE, NOW) == ()


@pytest.mark.parametrize(
    ("wanted", "enough", "short", "code", "text", "until"),
    [
        (
            Requirements(battery_pct=30),
            Condition(battery_pct=told(30)),
            Condition(battery_pct=told(29), charging=told(False)),
            "battery",
            "its battery is at 29 %, and must be at 30 %",
            None,
        ),
        (
            Requirements(charging=True),
            Condition(charging=told(True)),
            Condition(charging=told(False)),
            "charging",
            "it is not on external power",
            None,
        ),
        (
            Requirements(free_bytes=24),
            Condition(free_bytes=told(1_000_024)),
            Condition(free_bytes=told(1_000_023)),
            "free_space",
            "it has 1,000,023 bytes free, and needs 1,000,024",
            None,
        ),
        (
            Requirements(),
            Condition(slot_bytes=told(1_111_112)),
            Condition(slot_bytes=told(1_111_111)),
            "slot",
            "the artifact has 1,000,000 bytes, and its slot of 1,111,111 bytes takes at most 999,999",
            None,
        ),
        (
            Requirements(links=frozenset({Link.WIFI, Link.ETHERNET})),
            Condition(link=told(Link.WIFI)),
            Condition(link=told(Link.CELLULAR)),
            "link",
            "it is connected by cellular, and must be by ethernet or wifi",
            None,
        ),
        (
            Requirements(unmetered=True),
            Condition(metered=told(False)),
            Condition(metered=told(True)),
            "metered",
            "its traffic is paid for by volume",
            None,
        ),
        (
            Requirements(uptime_s=600),
            Condition(uptime_s=told(540.0)),
            Condition(uptime_s=told(539.0)),
            "uptime",
            "it has been up for 599 s, and must be for 600 s",
            NOW + 1,
        ),
    ],
)
def test_each_requirement_at_its_edge(
    wanted: Requirements, enough: Condition, short: Condition, code: str, text: str, until: float | None
) -> None:
    assert held(wanted, enough) == {}
    assert held(wanted, short) == {code: (text, until)}
    assert held(replace(wanted, unknown=Unknown.ALLOW), Condition()) == {}


def test_what_is_not_told_or_too_old_is_unknown() -> None:
    wanted = Requirements(30, True, 0, frozenset({Link.WIFI}), True, 600.0, max_age_s=100.0)
    names = {"charging_unknown", "battery_unknown", "free_space_unknown", "link_unknown", "metered_unknown"}
    assert set(held(wanted, Condition())) == names | {"uptime_unknown"}
    assert held(wanted, Condition())["battery_unknown"] == ("it did not say lately the charge of its battery", None)
    fresh = Condition(
        told(30, 100.0),
        told(True, 100.0),
        told(1_000_000, 100.0),
        told(1_200_000, 9e9),
        told(Link.WIFI, 100.0),
        told(False, 100.0),
        told(600.0, 100.0),
    )
    assert held(wanted, fresh) == {}
    stale = replace(fresh, free_bytes=told(1_000_000, 100.5), link=told(Link.WIFI, 100.5))
    assert set(held(wanted, stale)) == {"free_space_unknown", "link_unknown"}


def test_a_slot_never_ages_and_is_judged_unasked() -> None:
    assert set(held(Requirements(), Condition(slot_bytes=told(1_000_000, 9e9)))) == {"slot"}


def test_external_power_makes_up_for_an_empty_battery() -> None:
    wanted = Requirements(battery_pct=50, max_age_s=100.0)
    assert held(wanted, Condition(battery_pct=told(1), charging=told(True))) == {}
    assert set(held(wanted, Condition(battery_pct=told(1), charging=told(True, 101.0)))) == {"battery"}


def test_a_fact_from_the_future_is_fresh_and_an_uptime_grows_only_with_time_that_passed() -> None:
    wanted = Requirements(uptime_s=600.0, max_age_s=100.0)
    assert held(wanted, Condition(uptime_s=told(300.0, -5000.0)))["uptime"][1] == NOW + 300


requirements = st.builds(
    Requirements,
    st.none() | st.integers(0, 100),
    st.booleans(),
    st.none() | st.integers(0, 10**6),
    st.frozensets(st.sampled_from(Link)),
    st.booleans(),
    st.none() | st.floats(0, 1000),
    st.floats(0, 1000),
    st.sampled_from(Unknown),
)
ages = st.floats(0, 2000)
conditions = st.builds(
    Condition,
    *(
        st.none() | st.builds(told, values, ages)
        for values in (
            st.integers(0, 100),
            st.booleans(),
            st.integers(0, 3 * 10**6),
            st.integers(0, 3 * 10**6),
            st.sampled_from(Link),
            st.booleans(),
            st.floats(0, 1000),
        )
    ),
)


@given(requirements, conditions)
def test_every_reason_is_named_once_and_a_later_time_is_really_later(wanted: Requirements, said: Condition) -> None:
    found = unmet(wanted, said, SIZE, NOW)
    codes = [item.reason.code for item in found]
    assert len(set(codes)) == len(codes)
    assert all(item.until is None or item.until > NOW for item in found)
    if wanted.unknown is Unknown.ALLOW:
        assert not any(code.endswith("_unknown") for code in codes)


@given(requirements, conditions)
def test_who_knows_more_meets_no_more_than_who_is_believed_blindly(wanted: Requirements, said: Condition) -> None:
    """With `allow` only what was told can hold; with `hold` the same, and what was not told besides."""
    blind = {item.reason.code for item in unmet(replace(wanted, unknown=Unknown.ALLOW), said, SIZE, NOW)}
    strict = {item.reason.code for item in unmet(replace(wanted, unknown=Unknown.HOLD), said, SIZE, NOW)}
    assert blind == {code for code in strict if not code.endswith("_unknown")}


@given(requirements, conditions)
def test_a_reason_with_a_time_is_gone_at_that_time_if_facts_do_not_age(wanted: Requirements, said: Condition) -> None:
    ageless = replace(wanted, max_age_s=1e12)
    for item in unmet(ageless, said, SIZE, NOW):
        if item.until is not None:
            later = {other.reason.code for other in unmet(ageless, said, SIZE, item.until + 1e-3)}
            assert item.reason.code not in later


ASK = ConsentRule(Consent.ASK, deferrals=2, longest_s=1000.0)


def test_users_are_asked_only_where_the_plan_says_so() -> None:
    assert awaits(ConsentRule(), Wish(), NOW) is None
    found = awaits(ASK, Wish(), NOW)
    assert found is not None and (found.reason.code, found.until) == ("consent", None)
    assert awaits(ASK, Wish(agreed=True), NOW) is None


def test_a_deferral_holds_until_its_time_and_then_the_user_is_asked_again() -> None:
    wish = Wish(False, NOW + 1000, 1)
    found = awaits(ASK, wish, NOW)
    assert found is not None and found.until == NOW + 1000
    assert (found.reason.code, found.reason.text) == ("deferred", "its user put the update off, 1 of 2 times")
    again = awaits(ASK, wish, NOW + 1000)
    assert again is not None and again.reason.code == "consent"


def test_a_clock_that_was_set_back_does_not_stretch_a_deferral() -> None:
    found = awaits(ASK, Wish(False, NOW + 1000, 1), NOW - 86_400)
    assert found is not None and found.until == NOW - 86_400 + 1000
