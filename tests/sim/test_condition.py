"""Whether a device can begin: each code, and that device and daemon mean the same by what a plan requires."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.pace import requirement
from orchestrator.core.pace.requirement import Condition, Link, Requirements, Told
from orchestrator.core.pace.retry import FailureClass, class_of
from orchestrator.core.trigger import conditions
from orchestrator.sim.condition import unfit
from orchestrator.sim.unit import Phase
from orchestrator.wire.report import Kind, OwnFacts, decode_report, encode
from tests.sim.issuer import Bench, Build, Issuer, profile_with

D = "sim-00000"
SIZE = 1000


@pytest.mark.parametrize(
    ("facts", "policy", "code"),
    [
        ({"bat": 29}, {"bat": 30}, "low_battery"),
        ({"bat": 30}, {"bat": 30}, ""),
        ({"bat": 29, "charging": True}, {"bat": 30}, ""),
        ({"charging": False}, {"chg": 1}, "not_charging"),
        ({"charging": True}, {"chg": 1}, ""),
        ({"bat": 10, "charging": False}, {"bat": 30, "chg": 1}, "low_battery"),
        ({"free": SIZE + 9}, {"free": 10}, "no_space"),
        ({"free": SIZE + 10}, {"free": 10}, ""),
        ({"free": SIZE - 1}, {}, "no_space"),
        ({"free": SIZE}, {}, ""),
        ({"link": "cellular"}, {"link": ["wifi", "ethernet"]}, "link_unsuitable"),
        ({"link": "ethernet"}, {"link": ["wifi", "ethernet"]}, ""),
        ({"link": "cellular"}, {}, ""),
        ({"metered": True}, {"unm": 1}, "link_unsuitable"),
        ({"metered": True}, {}, ""),
        ({"metered": False}, {"unm": 1}, ""),
        ({"uptime": 599}, {"up": 600}, "just_booted"),
        ({"uptime": 600}, {"up": 600}, ""),
        ({"slot": 1111}, {}, "too_large"),
        ({"slot": 1112}, {}, ""),
        ({"slot": 1111, "bat": 1}, {"bat": 30}, "too_large"),
        ({}, {"bat": 30, "chg": 1, "free": 1, "link": ["wifi"], "unm": 1, "up": 600}, ""),
    ],
)
def test_each_condition_has_its_code(facts: dict[str, Any], policy: dict[str, Any], code: str) -> None:
    assert unfit(OwnFacts(**facts), policy, SIZE) == code
    if code:
        assert class_of(code) is (FailureClass.PERMANENT if code == "too_large" else FailureClass.TRANSIENT)


def test_what_a_device_needs_itself_comes_before_what_it_is_asked_for() -> None:
    assert unfit(OwnFacts(bat=29, charging=True), {}, SIZE, least_battery_pct=30) == "low_battery"
    assert unfit(OwnFacts(bat=30), {}, SIZE, least_battery_pct=30) == ""


MEANT = {
    "battery": "low_battery",
    "charging": "not_charging",
    "free_space": "no_space",
    "link": "link_unsuitable",
    "metered": "link_unsuitable",
    "uptime": "just_booted",
}


@given(
    required=st.builds(
        Requirements,
        battery_pct=st.none() | st.integers(0, 100),
        charging=st.booleans(),
        free_bytes=st.integers(0, 3000),
        links=st.frozensets(st.sampled_from(Link)),
        unmetered=st.booleans(),
        uptime_s=st.none() | st.floats(0.0, 100.0, exclude_min=True),
    ),
    facts=st.builds(
        OwnFacts,
        bat=st.integers(0, 100),
        charging=st.booleans(),
        free=st.integers(0, 5000),
        link=st.sampled_from(["wifi", "ethernet", "cellular"]),
        metered=st.booleans(),
        uptime=st.integers(0, 110),
    ),
)
def test_a_device_refuses_exactly_what_the_daemon_would_not_offer_it_now(
    required: Requirements, facts: OwnFacts
) -> None:
    assert facts.link is not None
    told = Condition(
        battery_pct=Told(facts.bat or 0, 5.0),
        charging=Told(bool(facts.charging), 5.0),
        free_bytes=Told(facts.free or 0, 5.0),
        link=Told(Link(facts.link), 5.0),
        metered=Told(bool(facts.metered), 5.0),
        uptime_s=Told(float(facts.uptime or 0), 5.0),
    )
    held = {MEANT[item.reason.code] for item in requirement.unmet(required, told, SIZE, 5.0)}
    code = unfit(facts, conditions(required), SIZE)
    assert (code in held) if held else (code == "")


@pytest.mark.parametrize(
    ("behaviour", "policy", "code"),
    [
        ({"battery_pct": (29, 29)}, {"bat": 30}, "low_battery"),
        ({"battery_pct": (29, 29), "charging_share": 1.0}, {"bat": 30}, ""),
        ({}, {"chg": 1}, "not_charging"),
        ({"charging_share": 1.0}, {"chg": 1}, ""),
        ({"free_bytes": 5000}, {"free": 1000}, "no_space"),
        ({"free_bytes": 6000}, {"free": 1000}, ""),
        ({"links": {"cellular": 1.0}}, {"link": ["wifi", "ethernet"]}, "link_unsuitable"),
        ({"links": {"ethernet": 1.0}}, {"link": ["wifi", "ethernet"]}, ""),
        ({"metered_share": 1.0}, {"unm": 1}, "link_unsuitable"),
        ({}, {"unm": 1}, ""),
        ({}, {"up": 600}, "just_booted"),
    ],
)
def test_a_simulated_device_is_judged_by_its_profile(
    issuer: Issuer, good: Build, behaviour: dict[str, Any], policy: dict[str, Any], code: str
) -> None:
    bench = Bench(profile_with(issuer, **behaviour), good)
    before = bench.unit.flash
    (report,) = bench.command(issuer.install(D, good, pol=policy))
    assert (report.kind, report.code) == ((Kind.REFUSED, code) if code else (Kind.ACCEPTED, ""))
    if code:
        assert (bench.unit.phase, bench.unit.flash) == (Phase.IDLE, before)
        assert report.facts == bench.unit.facts(bench.now)
        assert decode_report(encode(report), D) == report


def test_a_refused_trigger_is_taken_once_the_condition_is_met(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good, pol={"up": 600})
    bench.now += 599.9
    (refusal,) = bench.command(offer)
    assert (refusal.code, refusal.facts and refusal.facts.uptime) == ("just_booted", 599)
    bench.now += 0.1
    assert [report.kind for report in bench.command(offer)] == [Kind.ACCEPTED]


def test_what_was_begun_is_not_checked_again(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good, pol={"bat": 30})
    bench.command(offer)
    bench.unit = replace(bench.unit, profile=replace(bench.unit.profile, battery=5))
    assert [report.kind for report in bench.command(offer)] == [Kind.ACCEPTED]  # a refresh repeats the last report
    bench.settle()
    assert bench.kinds[-1] is Kind.CONFIRMED
