"""What holds a device, when it is looked at again, and what urgency overrides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Deadlines, Reason, Urgency
from orchestrator.core.pace import ramp
from orchestrator.core.pace.hold import (
    LOOK_AGAIN_S,
    SOONEST_S,
    Candidate,
    Hold,
    Situation,
    closes_at,
    judge,
    overrides,
    shut,
)
from orchestrator.core.pace.requirement import Condition, Consent, ConsentRule, Requirements, Told, Wish
from orchestrator.core.pace.window import DAY_S, UTC, Freeze, Window, Windows
from tests.support.builders import REST, make_plan

KEY = b"k" * 32
MIDNIGHT = 20_000.0 * DAY_S
NOON = MIDNIGHT + 12 * 3600.0
NIGHT = Windows((Window(22 * 3600, 4 * 3600),))
ACCEPT_S = 86_400.0
SOON = Deadlines(accept_s=10.0)


def candidate(**changes: Any) -> Candidate:
    return replace(Candidate("d1", 1, NOON, 1, None, Situation(), 1000), **changes)


def held(now: float = NOON, device: Candidate | None = None, **plan: Any) -> Hold | None:
    made = make_plan((REST,), **plan)
    return judge(made, KEY, replace(device or candidate(), shut=shut(made, UTC, now)), now)


def codes(found: Hold | None) -> list[str]:
    return [] if found is None else [item.reason.code for item in found.reasons]


def test_a_plan_without_rules_holds_nobody() -> None:
    assert held() is None


def test_everything_that_holds_is_named_and_hours_decide_when_to_look() -> None:
    found = held(windows=NIGHT, require=Requirements(battery_pct=30, uptime_s=600.0), consent=ConsentRule(Consent.ASK))
    assert found is not None
    assert codes(found) == ["window", "battery_unknown", "uptime_unknown", "consent"]
    assert (found.code, found.look_at, found.unreached) == ("window", MIDNIGHT + 22 * 3600.0, False)


def test_an_opening_window_is_entered_over_the_time_of_the_jitter() -> None:
    found = held(windows=NIGHT, jitter_s=600.0, device=candidate(since=0.0))
    delay_s = ramp.delay_s(KEY, "d1", 1, 600.0)
    assert found is not None and delay_s > 0
    assert (codes(found), found.look_at) == (["window"], MIDNIGHT + 22 * 3600.0 + delay_s)
    assert held(found.look_at, windows=NIGHT, jitter_s=600.0, device=candidate(since=0.0)) is None


def test_jitter_holds_each_attempt_until_its_own_place() -> None:
    found = held(jitter_s=600.0)
    assert found is not None
    assert found.look_at == NOON + ramp.delay_s(KEY, "d1", 1, 600.0)
    assert held(found.look_at, jitter_s=600.0) is None
    again = held(jitter_s=600.0, device=candidate(attempt=2))
    assert again is not None and again.look_at != found.look_at


def test_who_may_never_change_is_unreached_after_the_time_for_an_answer() -> None:
    require = Requirements(battery_pct=30)
    early = held(NOON + ACCEPT_S - 100.0, require=require)
    assert early is not None
    assert (early.unreached, early.look_at) == (False, NOON + ACCEPT_S)
    late = held(NOON + ACCEPT_S, require=require)
    assert late is not None and late.unreached
    first = held(require=require)
    assert first is not None and first.look_at == NOON + LOOK_AGAIN_S


def test_who_boots_again_and_again_is_not_waited_for_longer_than_others() -> None:
    require = Requirements(uptime_s=7200.0)
    now = NOON + ACCEPT_S - 100.0
    just_booted = candidate(situation=Situation(Condition(uptime_s=Told(0.0, now))))
    found = held(now, just_booted, require=require)
    assert found is not None
    assert (codes(found), found.unreached, found.look_at) == (["uptime"], False, NOON + ACCEPT_S)
    late = held(NOON + ACCEPT_S, just_booted, require=require)
    assert late is not None
    assert (late.unreached, late.passes_at) == (True, now + 7200.0)


def test_when_nothing_holds_it_any_more_is_known_only_if_all_ends_are() -> None:
    said = Situation(Condition(uptime_s=Told(0.0, NOON)))
    both = held(device=candidate(situation=said), windows=NIGHT, require=Requirements(uptime_s=7200.0))
    assert both is not None and both.passes_at == MIDNIGHT + 22 * 3600.0
    spread = held(windows=NIGHT, jitter_s=600.0)
    assert spread is not None and spread.passes_at == spread.look_at > MIDNIGHT + 22 * 3600.0
    more = Requirements(uptime_s=7200.0, battery_pct=30)
    unknown = held(device=candidate(situation=said), windows=NIGHT, require=more)
    assert unknown is not None and unknown.passes_at is None


def test_who_says_when_it_may_change_is_waited_for() -> None:
    later = Situation(wish=Wish(False, NOON + 2 * ACCEPT_S, 1), wish_rel=1, deferred_at=NOON)
    found = held(NOON + ACCEPT_S, candidate(situation=later), consent=ConsentRule(Consent.ASK))
    assert found is not None
    assert (codes(found), found.unreached, found.look_at) == (["deferred"], False, NOON + 2 * ACCEPT_S)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(wish=Wish(True), wish_rel=1), []),
        (Situation(wish=Wish(True), wish_rel=0), ["consent"]),
        (Situation(wish=Wish(False, NOON + 10.0, 3), wish_rel=1, deferred_at=NOON), ["deferred"]),
        (Situation(wish=Wish(False, NOON + 10.0, 1), wish_rel=1, deferred_at=NOON - 7 * DAY_S), ["consent"]),
        (Situation(wish=Wish(False, NOON + 10.0, 4), wish_rel=1, deferred_at=NOON), ["consent"]),
    ],
    ids=["agreed", "agreed to the update before", "put off", "put off too long", "put off too often"],
)
def test_the_word_of_a_user_is_about_one_update(situation: Situation, expected: list[str]) -> None:
    assert codes(held(device=candidate(situation=situation), consent=ConsentRule(Consent.ASK))) == expected


def test_no_deferral_counts_longer_than_all_that_a_plan_allows_would_last_together() -> None:
    """Whoever says by turns that it runs another release makes every deferral the first one."""
    rule = ConsentRule(Consent.ASK, deferrals=2, longest_s=100.0)

    def put_off(after_s: float) -> Hold | None:
        again = Situation(wish=Wish(False, NOON + after_s + 50.0, 1), wish_rel=1, deferred_at=NOON + after_s)
        return held(NOON + after_s, candidate(situation=again), consent=rule, deadlines=SOON)

    honest, spent = put_off(199.0), put_off(200.0)
    assert honest is not None and (codes(honest), honest.unreached) == (["deferred"], False)
    assert spent is not None and (codes(spent), spent.unreached) == (["consent"], True)


def test_an_artifact_that_does_not_fit_is_held_whatever_the_plan_says() -> None:
    small = Situation(Condition(slot_bytes=Told(1111, NOON)))
    assert codes(held(device=candidate(situation=small))) == ["slot"]
    assert codes(held(device=candidate(situation=small), urgency=Urgency.EMERGENCY)) == ["slot"]


def test_who_is_too_old_is_held_however_urgent_it_is_and_nobody_knows_until_when() -> None:
    found = held(device=candidate(unfit=Reason("from_too_low", "old")), urgency=Urgency.EMERGENCY)
    assert codes(found) == ["from_too_low"]
    assert found is not None and not found.unreached


@pytest.mark.parametrize(
    ("urgency", "urgent_from", "overridden"),
    [
        (Urgency.EMERGENCY, Urgency.EMERGENCY, True),
        (Urgency.SECURITY, Urgency.EMERGENCY, False),
        (Urgency.SECURITY, Urgency.SECURITY, True),
        (Urgency.NORMAL, Urgency.SECURITY, False),
    ],
)
def test_urgency_overrides_hours_and_consent_and_nothing_else(
    urgency: Urgency, urgent_from: Urgency, overridden: bool
) -> None:
    windows = replace(NIGHT, freezes=(Freeze(0, 99_999, "the fair"),))
    plan: dict[str, Any] = {"urgency": urgency, "urgent_from": urgent_from, "windows": windows}
    plan |= {"consent": ConsentRule(Consent.ASK), "require": Requirements(battery_pct=30)}
    expected = ["battery_unknown"] if overridden else ["freeze", "battery_unknown", "consent"]
    assert codes(held(**plan)) == expected
    assert overrides(make_plan((REST,), **plan)) == (["windows", "freezes", "consent"] if overridden else [])


def test_until_when_a_device_may_begin() -> None:
    assert closes_at(make_plan((REST,)), UTC, NOON) is None
    plan = make_plan((REST,), windows=NIGHT)
    assert closes_at(plan, UTC, NOON) == NOON
    assert closes_at(plan, UTC, MIDNIGHT) == MIDNIGHT + 4 * 3600.0
    assert closes_at(replace(plan, urgency=Urgency.EMERGENCY), UTC, NOON) is None


@given(
    now=st.floats(NOON, NOON + 3 * DAY_S),
    jitter_s=st.sampled_from([0.0, 3600.0]),
    uptime_s=st.none() | st.floats(1.0, DAY_S),
    told=st.none() | st.floats(0.0, DAY_S),
    windows=st.sampled_from([Windows(), NIGHT]),
)
def test_a_held_device_is_always_looked_at_again_and_never_at_once(
    now: float, jitter_s: float, uptime_s: float | None, told: float | None, windows: Windows
) -> None:
    said = Situation(Condition(uptime_s=None if told is None else Told(told, NOON)))
    plan: dict[str, Any] = {"jitter_s": jitter_s, "windows": windows, "require": Requirements(uptime_s=uptime_s)}
    found = held(now, candidate(situation=said), **plan)
    if found is not None:
        assert now + SOONEST_S <= found.look_at <= now + 2 * DAY_S
