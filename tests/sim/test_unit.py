"""What a device says of itself: its condition at the moment, and what it measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.errors import ConfigError
from orchestrator.sim.behaviour import Behaviour, altered
from orchestrator.sim.events import PowerCut, Up
from orchestrator.sim.profile import cast
from orchestrator.wire.report import Kind, OwnFacts, decode_report, encode
from tests.sim.issuer import Bench, Build, Issuer, profile_with

D = "sim-00000"
HOT = {"metrics": {"temperature": (55.0, 5.0), "free_kib": (80.0, 0.0)}, "bad_metrics": {"temperature": 40.0}}


def test_facts_are_those_of_the_profile(issuer: Issuer) -> None:
    behaviour = {"battery_pct": (77, 77), "free_bytes": 9000, "slot_bytes": 8000, "links": {"cellular": 1.0}}
    bench = Bench(profile_with(issuer, "charging", "metered", **behaviour))
    said = bench.unit.facts(bench.now + 12.9)
    assert said == OwnFacts(bat=77, charging=True, free=9000, slot=8000, link="cellular", metered=True, uptime=12)
    plain = Bench(profile_with(issuer, battery_pct=(77, 77))).unit
    assert plain.facts(bench.now) == OwnFacts(bat=77, charging=False, link="wifi", metered=False, uptime=0)


def test_uptime_counts_from_the_last_boot(issuer: Issuer) -> None:
    bench = Bench(profile_with(issuer))
    bench.now += 100
    assert bench.unit.facts(bench.now).uptime == 100
    bench.feed(PowerCut())
    assert bench.unit.facts(bench.now).uptime is None
    bench.tick()
    up = bench.effects[-1]
    assert isinstance(up, Up) and up.hello.facts is not None
    assert (up.hello.facts.uptime, bench.unit.facts(bench.now + 3).uptime) == (0, 3)


def test_a_device_says_its_metrics_in_hellos_and_with_what_it_runs(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, **HOT), good)
    measured = bench.unit.hello(bench.now).metrics
    assert 50 <= measured["temperature"] <= 60 and measured["free_kib"] == 80
    bench.command(issuer.install(D, good))
    bench.settle()
    assert {report.kind for report in bench.reports if report.metrics} == {Kind.RUNNING, Kind.CONFIRMED}
    assert [report.metrics for report in bench.reports if report.metrics] == [measured, measured]
    assert all(decode_report(encode(report), D) == report for report in bench.reports)


def test_a_bad_image_shifts_metrics_although_the_device_calls_itself_healthy(issuer: Issuer, bad: Build) -> None:
    bench = Bench(profile_with(issuer, **HOT), bad)
    before = bench.unit.metrics["temperature"]
    bench.command(issuer.install(D, bad))
    bench.settle()
    last = bench.reports[-1]
    assert (last.kind, last.metrics["free_kib"]) == (Kind.CONFIRMED, 80)
    assert last.metrics["temperature"] == pytest.approx(before + 40)
    assert bench.unit.hello(bench.now).metrics == last.metrics


def test_a_version_may_count_as_bad_whatever_its_bytes_say(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, **HOT, bad_releases=("1.1.0",)), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    assert bench.reports[-1].metrics["temperature"] >= 90


def test_each_device_has_its_own_number_and_keeps_it(issuer: Issuer) -> None:
    fleet = Behaviour(devices=50, metrics={"temperature": (55.0, 5.0)})
    drawn = [
        each.metrics["temperature"] for each in cast(fleet, dict.fromkeys(fleet.device_ids()), issuer.trust(), "a")
    ]
    again = cast(
        replace(fleet, metrics={"p95_ms": (1.0, 1.0), **fleet.metrics}), {"sim-00007": None}, issuer.trust(), "b"
    )
    assert again[0].metrics["temperature"] == drawn[7]
    assert min(drawn) < 52 and max(drawn) > 58 and len(set(drawn)) == 50
    assert all(50 <= number < 60 for number in drawn)


def test_traits_and_links_are_dealt_exactly(issuer: Issuer) -> None:
    fleet = Behaviour(devices=20, charging_share=0.25, metered_share=0.1, links={"wifi": 3, "cellular": 1})
    profiles = cast(fleet, dict.fromkeys(fleet.device_ids()), issuer.trust(), "a")
    assert [sum(each.has(trait) for each in profiles) for trait in ("charging", "metered")] == [5, 2]
    assert [sum(each.link == link for each in profiles) for link in ("wifi", "cellular", "ethernet")] == [15, 5, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"metrics": {"Temperature": [1, 0]}}, "matching"),
        ({"metrics": {"temperature": [1, -1]}}, ">= 0"),
        ({"metrics": {"temperature": 1}}, "array"),
        ({"metrics": {f"m{n}": [1, 0] for n in range(17)}}, "length <= 16"),
        ({"bad_metrics": {"temperature": 40}}, "'temperature' is none of the metrics"),
        ({"links": {"lora": 1}}, "lora"),
        ({"links": {"wifi": 0}}, "at least one part"),
        ({"free_bytes": -1}, ">= 0"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        altered(Behaviour(), values)
