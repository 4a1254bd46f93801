"""What must hold for a device whatever happens to it, in whatever order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.sim.events import Chunk, Command, Event, FetchFailed, Opened, PowerCut, PowerOn, Tick
from orchestrator.sim.slots import SlotState
from orchestrator.sim.unit import Phase
from orchestrator.wire.report import Kind, Report
from tests.sim.issuer import Bench, Build, Issuer, profile_with

D = "sim-00000"
ISSUER = Issuer()
GOOD = Build.make("1.1.0", 2, size_bytes=600)
BAD = Build.make("1.2.0", 3, bad=True, size_bytes=600)
SIGNED = {"", GOOD.sha256, BAD.sha256}

OFFERS = [ISSUER.install(D, GOOD), ISSUER.install(D, GOOD), ISSUER.install(D, GOOD, pol={"jit": 30})]
RECALL = ISSUER.recall(D, OFFERS[0])
LATE_OFFER = ISSUER.install(D, GOOD)
OTHERS = [ISSUER.install(D, BAD, att="2.1"), ISSUER.install(D, BAD, att="2.2"), ISSUER.install(D, GOOD, att="3.1")]
HOSTILE = [b"", b"{}", Issuer().install(D, GOOD), ISSUER.install("sim-00001", GOOD), OFFERS[0][:-1], OFFERS[1] + b"\n"]


@dataclass(frozen=True)
class Onward:
    """Not an event: let the device get on by itself, with the right bytes."""

    build: Build


# By name, so that a failing order can be read.
SHARED: dict[str, Event | Onward] = {
    "tick": Tick(),
    "power on": PowerOn(),
    "power cut": PowerCut(),
    "opened at 0": Opened(0),
    "opened at 200": Opened(200),
    "link lost": FetchFailed("link_lost", final=False),
    "artifact missing": FetchFailed("artifact_missing", final=True),
    "wrong bytes": Chunk(b"wrong"),
    "first bytes": Chunk(GOOD.data[:200]),
    "last bytes": Chunk(GOOD.data[200:]),
    "all bytes": Chunk(GOOD.data),
    "bytes of the bad": Chunk(BAD.data),
    "onward": Onward(GOOD),
    **{f"hostile {number}": Command(payload) for number, payload in enumerate(HOSTILE)},
    **{f"offer {number}": Command(payload) for number, payload in enumerate([*OFFERS, LATE_OFFER])},
}
ANYTHING: dict[str, Event | Onward] = {
    **SHARED,
    "onward with the bad": Onward(BAD),
    "recall": Command(RECALL),
    **{f"other {number}": Command(payload) for number, payload in enumerate(OTHERS)},
}
FAULTS = st.sets(st.sampled_from(["bad", "lie", "silent", "power_loss"]))
ONE_UPDATE_MOVES = st.lists(st.sampled_from(sorted(SHARED)), max_size=40)
ANY_MOVES = st.lists(st.sampled_from(sorted(ANYTHING)), max_size=40)


def played(faults: set[str], moves: list[str]) -> Bench:
    bench = Bench(profile_with(ISSUER, *faults), GOOD)
    for name in moves:
        before = bench.unit.flash.component
        move = ANYTHING[name]
        if isinstance(move, Onward):
            bench.build = move.build
            bench.advance()
        else:
            bench.feed(move)
        check(bench)
        assert bench.unit.flash.component.seq >= before.seq
        assert bench.unit.flash.component.rel >= before.rel
    return bench


def check(bench: Bench) -> None:
    slots = bench.unit.flash.slots
    assert SlotState.VALID in [slot.state for slot in slots.pair]
    assert slots.running.state in (SlotState.VALID, SlotState.PENDING_VERIFY)
    assert {slot.image.sha256 for slot in slots.pair} <= SIGNED


@settings(max_examples=300, deadline=None)
@given(FAULTS, ANY_MOVES)
def test_no_order_bricks_a_device_runs_unsigned_bytes_or_lowers_a_mark(faults: set[str], moves: list[str]) -> None:
    bench = played(faults, moves)
    by_number: dict[tuple[str, int], Report] = {}
    for report in bench.reports:
        # A report that comes twice is the same report, byte for byte.
        assert by_number.setdefault((report.boot, report.n), report) == report


@settings(max_examples=300, deadline=None)
@given(FAULTS, ONE_UPDATE_MOVES)
def test_duplicates_and_reorders_begin_one_attempt_once(faults: set[str], moves: list[str]) -> None:
    bench = played(faults, moves)
    assert bench.events.count("accepted") <= 1
    assert bench.events.count("installed") <= 1


@settings(max_examples=200, deadline=None)
@given(ANY_MOVES)
def test_a_device_always_comes_to_rest(moves: list[str]) -> None:
    bench = played(set(), moves)
    bench.settle()
    assert bench.unit.phase is Phase.IDLE
    assert bench.unit.flash.slots.running.state is SlotState.VALID


def steps(*faults: str, build: Build) -> int:
    """Count how often something happens on the whole road of one update."""
    bench = Bench(profile_with(ISSUER, *faults), build)
    bench.command(ISSUER.install(D, build))
    count = 0
    while bench.advance():
        count += 1
    return count


@pytest.mark.parametrize("build", [GOOD, BAD], ids=["good", "bad"])
def test_power_lost_at_any_point_ends_in_a_valid_slot(build: Build) -> None:
    ended = set()
    for cut_after in range(steps("bad", build=build) + 1):
        bench = Bench(profile_with(ISSUER, "bad"), build)
        bench.command(ISSUER.install(D, build))
        for _ in range(cut_after):
            bench.advance()
        bench.feed(PowerCut())
        bench.settle()
        check(bench)
        assert bench.unit.flash.slots.running.state is SlotState.VALID
        assert (bench.unit.phase, bench.unit.flash.attempt) == (Phase.IDLE, None)
        ended.add((bench.unit.running.version, bench.kinds[-1]))
    old, new = ("1.0.0", Kind.ROLLED_BACK), ("1.1.0", Kind.CONFIRMED)
    assert ended == ({old, new} if build is GOOD else {old})


@pytest.mark.parametrize("received", range(0, 600, 37))
def test_power_lost_at_any_byte_of_the_download_resumes_there(received: int) -> None:
    bench = Bench(profile_with(ISSUER), GOOD)
    bench.command(ISSUER.install(D, GOOD))
    bench.until(Phase.DOWNLOADING)
    bench.feed(Opened(0))
    bench.feed(Chunk(GOOD.data[:received]))
    bench.feed(PowerCut())
    bench.settle()
    assert bench.unit.running.version == "1.1.0"
    assert bench.unit.flash.boots == 3


def test_a_rollback_costs_exactly_two_boots_and_keeps_the_slot() -> None:
    bench = Bench(profile_with(ISSUER, "bad"), BAD)
    before = bench.unit.flash.slots.active
    bench.command(ISSUER.install(D, BAD))
    bench.settle()
    assert bench.unit.flash.boots == 1 + 2
    assert bench.unit.flash.slots.active == before


def test_a_report_number_rises_by_one_within_a_boot() -> None:
    bench = Bench(profile_with(ISSUER, "bad", "power_loss"), BAD)
    bench.command(ISSUER.install(D, BAD))
    bench.settle()
    numbers: dict[str, list[int]] = {}
    for report in bench.reports:
        numbers.setdefault(report.boot, []).append(report.n)
    assert all(found == list(range(len(found))) for found in numbers.values())
