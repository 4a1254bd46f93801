from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sim.device import MAX_TRIES
from orchestrator.sim.events import (
    Chunk,
    Command,
    Down,
    Fetch,
    FetchFailed,
    Note,
    Opened,
    PowerCut,
    StopFetch,
    Tick,
    Up,
)
from orchestrator.sim.slots import SlotState
from orchestrator.sim.unit import Phase
from orchestrator.wire.report import Kind, decode_hello, decode_report, encode
from tests.sim.issuer import NOW, ORIGIN, Bench, Build, Issuer, digest, profile_with

D = "sim-00000"
WHOLE = [Kind.ACCEPTED, Kind.PROGRESS, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED]


def states(bench: Bench) -> list[str]:
    return [str(slot.state) for slot in bench.unit.flash.slots.pair]


# -- the straight road -------------------------------------------------------------------------------


def test_a_good_release_is_installed_and_confirmed(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    assert bench.kinds == WHOLE
    assert (bench.unit.running.version, bench.unit.running.rel) == ("1.1.0", 2)
    assert states(bench) == ["valid", "valid"]
    assert bench.unit.flash.boots == 2
    component = bench.unit.flash.component
    assert (component.rel, component.sha256, component.att) == (2, good.sha256, "1.1")
    assert bench.unit.flash.attempt is None


def test_reports_carry_what_a_server_needs(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good, seq=77))
    bench.settle()
    told = [(report.boot, report.n, report.boots, report.rel, report.ver) for report in bench.reports]
    assert told == [
        ("run-1", 0, 1, 1, "1.0.0"),
        ("run-1", 1, 1, 1, "1.0.0"),
        ("run-1", 2, 1, 1, "1.0.0"),
        ("run-1", 3, 1, 1, "1.0.0"),
        ("run-2", 0, 2, 2, "1.1.0"),
        ("run-2", 1, 2, 2, "1.1.0"),
    ]
    assert {(report.dev, report.att, report.seq) for report in bench.reports} == {(D, "1.1", 77)}
    assert bench.reports[-1].sha == good.sha256[:12]
    assert all(decode_report(encode(report), D) == report for report in bench.reports)


def test_a_boot_says_hello(issuer: Issuer) -> None:
    bench = Bench(profile_with(issuer, groups=("pilot",)))
    (up,) = bench.effects
    assert isinstance(up, Up)
    assert decode_hello(encode(up.hello), D) == up.hello
    assert (up.hello.ver, up.hello.rel, up.hello.boot, up.hello.boots) == ("1.0.0", 1, "run-1", 1)
    assert (up.hello.model, up.hello.groups) == ("sim-a", ("pilot",))


def test_phases_take_the_time_of_the_profile(issuer: Issuer, good: Build) -> None:
    profile = profile_with(
        issuer, download_s=(10.0, 10.0), install_s=(3.0, 3.0), reboot_s=(5.0, 5.0), selftest_s=(20.0, 20.0), speed=2.0
    )
    bench = Bench(profile, good)
    bench.command(issuer.install(D, good))
    entered = {}
    for phase in (Phase.DOWNLOADED, Phase.INSTALLING, Phase.OFF, Phase.TESTING, Phase.IDLE):
        bench.until(phase)
        entered[phase] = bench.now - NOW
    assert entered == {Phase.DOWNLOADED: 0, Phase.INSTALLING: 5, Phase.OFF: 6.5, Phase.TESTING: 9, Phase.IDLE: 19}


def test_the_start_is_spread_by_the_trigger_jitter(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good, pol={"jit": 600}))
    assert bench.unit.wake_at is not None
    assert NOW < bench.unit.wake_at < NOW + 600
    assert bench.feed(Tick()) == ()
    bench.tick()
    assert bench.unit.phase is Phase.DOWNLOADING


def test_what_runs_already_is_confirmed_at_once(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    again = bench.command(issuer.install(D, good, att="2.1"))
    assert [(report.kind, report.att, report.rel) for report in again] == [
        (Kind.ACCEPTED, "2.1", 2),
        (Kind.CONFIRMED, "2.1", 2),
    ]
    assert (bench.unit.phase, bench.unit.flash.boots) == (Phase.IDLE, 2)


def test_a_second_release_goes_into_the_other_slot(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    bench.build = Build.make("1.2.0", 3)
    bench.command(issuer.install(D, bench.build, att="2.1"))
    bench.settle()
    assert [slot.image.version for slot in bench.unit.flash.slots.pair] == ["1.2.0", "1.1.0"]
    assert bench.unit.flash.slots.active == 0


# -- bad images ----------------------------------------------------------------------------------------


def test_a_bad_image_crashes_and_the_old_slot_comes_back(issuer: Issuer, bad: Build) -> None:
    bench = Bench(profile_with(issuer, "bad"), bad)
    bench.command(issuer.install(D, bad))
    bench.settle()
    assert bench.kinds == [*WHOLE[:-1], Kind.ROLLED_BACK]
    last = bench.reports[-1]
    assert (last.code, last.rel, last.ver, last.boots, last.n) == ("self_test_crash", 1, "1.0.0", 3, 0)
    assert states(bench) == ["valid", "invalid"]
    assert (bench.unit.running.version, bench.unit.flash.component.rel) == ("1.0.0", 1)
    assert bench.events == ["accepted", "installed", "crashed", "rolled_back"]


def test_a_bad_image_works_on_devices_without_the_fault(issuer: Issuer, bad: Build) -> None:
    bench = Bench(profile_with(issuer), bad)
    bench.command(issuer.install(D, bad))
    bench.settle()
    assert bench.kinds == WHOLE


def test_a_good_image_works_on_devices_with_the_fault(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, "bad"), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    assert bench.kinds == WHOLE


def test_a_release_can_be_bad_by_name(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, "bad", bad_releases=("1.1.0",)), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    assert bench.kinds[-1] is Kind.ROLLED_BACK


def test_a_liar_claims_success_while_the_old_release_runs(issuer: Issuer, bad: Build) -> None:
    bench = Bench(profile_with(issuer, "bad", "lie"), bad)
    bench.command(issuer.install(D, bad))
    bench.settle()
    last = bench.reports[-1]
    assert (last.kind, last.rel, last.ver, last.boots) == (Kind.CONFIRMED, 3, "1.2.0", 3)
    assert bench.unit.running.version == "1.0.0"
    assert bench.events[-2:] == ["rolled_back", "lied"]
    up = [effect for effect in bench.effects if isinstance(effect, Up)][-1]
    assert up.hello.rel == 1


def test_an_honest_success_of_a_liar_is_no_lie(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, "lie"), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    assert "lied" not in bench.events


def test_a_silent_device_is_never_heard_again(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, "silent"), good)
    bench.command(issuer.install(D, good))
    bench.settle()
    assert bench.kinds == WHOLE[:4]
    assert bench.unit.phase is Phase.SILENT
    for event in (PowerCut(), Tick(), Command(issuer.install(D, good, att="1.2"))):
        assert bench.feed(event) == ()


# -- repetition ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.DOWNLOADING, Phase.INSTALLING, Phase.TESTING, Phase.IDLE])
def test_an_attempt_held_is_never_begun_again(issuer: Issuer, good: Build, phase: Phase) -> None:
    bench = Bench(profile_with(issuer), good)
    bundle = issuer.install(D, good, pol={"jit": 60})
    renewed = issuer.install(D, good)
    bench.command(bundle)
    bench.until(phase)
    said = bench.reports[-1]
    assert bench.command(bundle) == [said]
    assert bench.command(renewed) == [said]
    assert bench.command(renewed) == [said]
    bench.settle()
    assert bench.events.count("accepted") == 1
    assert (bench.unit.running.version, bench.unit.flash.boots) == ("1.1.0", 2)


def test_a_failed_attempt_stays_failed_and_the_next_one_is_new(issuer: Issuer, bad: Build, good: Build) -> None:
    bench = Bench(profile_with(issuer, "bad"), bad)
    bench.command(issuer.install(D, bad))
    bench.settle()
    failed = bench.reports[-1]
    assert bench.command(issuer.install(D, bad)) == [failed]
    assert [report.kind for report in bench.command(issuer.install(D, bad, att="1.2"))] == [Kind.ACCEPTED]
    bench.settle()
    assert bench.unit.flash.boots == 5


def test_an_overtaken_trigger_is_refused_as_stale(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    old = issuer.install(D, good)
    bench.command(issuer.install(D, good, att="2.1"))
    (refusal,) = bench.command(old)
    assert (refusal.kind, refusal.code, refusal.att) == (Kind.REFUSED, "stale_seq", "1.1")
    bench.settle()
    assert bench.reports[-1].att == "2.1"
    assert bench.kinds[-1] is Kind.CONFIRMED


# -- refusals ------------------------------------------------------------------------------------------


def test_bytes_that_are_not_authentic_are_not_even_answered(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    forged = Issuer().install(D, good)
    for payload in (b"", b"{}", b"\xff" * 5000, forged, issuer.install("sim-00001", good)):
        assert bench.command(payload) == []
    assert [note.code for note in bench.notes] == [
        "not_a_token",
        "not_a_token",
        "too_long",
        "bad_signature",
        "not_addressed",
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": int(NOW), "iat": int(NOW) - 60}, "expired"),
        ({"urg": 3}, "warrant_missing"),
        ({"url": ["https://evil.test/v1/dl/x"]}, "url_origin"),
        ({"url": ["http://127.0.0.1:80/x"]}, "url_scheme"),
        ({"size": 9}, "statement_field"),
    ],
)
def test_an_authentic_trigger_that_must_not_be_followed_is_refused(
    issuer: Issuer, good: Build, changes: dict[str, Any], code: str
) -> None:
    bench = Bench(profile_with(issuer), good)
    before = bench.unit.flash.component
    (report,) = bench.command(issuer.install(D, good, **changes))
    assert (report.kind, report.code, report.att) == (Kind.REFUSED, code, "1.1")
    assert (bench.unit.phase, bench.unit.flash.component) == (Phase.IDLE, before)


def test_the_wrong_model_is_refused(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, models={"sim-z": 1.0}), good)
    (report,) = bench.command(issuer.install(D, good))
    assert report.code == "wrong_hardware"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"battery_pct": (29, 29), "least_battery_pct": 30}, "low_battery"),
        ({"slot_bytes": 1000}, "too_large"),
        ({"battery_pct": (30, 30), "least_battery_pct": 30}, ""),
        ({"slot_bytes": 10**9}, ""),
    ],
)
def test_a_device_checks_its_condition_itself(
    issuer: Issuer, good: Build, behaviour: dict[str, Any], code: str
) -> None:
    bench = Bench(profile_with(issuer, **behaviour), good)
    before = bench.unit.flash.component
    (report,) = bench.command(issuer.install(D, good))
    assert (report.kind, report.code) == ((Kind.REFUSED, code) if code else (Kind.ACCEPTED, ""))
    if code:
        assert (bench.unit.phase, bench.unit.flash.component) == (Phase.IDLE, before)
        assert report.facts == bench.unit.hello(bench.now).facts == bench.unit.facts(bench.now)
        assert decode_report(encode(report), D) == report


@pytest.mark.parametrize("phase", [Phase.INSTALLING, Phase.TESTING])
def test_a_device_that_installs_or_tests_is_busy(issuer: Issuer, good: Build, phase: Phase) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.until(phase)
    other = issuer.install(D, Build.make("1.2.0", 3), att="2.1")
    (report,) = bench.command(other)
    assert (report.kind, report.code, report.att) == (Kind.REFUSED, "busy", "2.1")
    bench.settle()
    # A refusal raises no mark: the same trigger is taken once the device is free.
    assert [report.kind for report in bench.command(other)] == [Kind.ACCEPTED]


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.DOWNLOADING, Phase.DOWNLOADED])
def test_a_newer_update_replaces_one_that_has_not_begun(issuer: Issuer, good: Build, phase: Phase) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good, pol={"jit": 60}))
    bench.until(phase)
    newer = Build.make("1.2.0", 3)
    said = bench.command(issuer.install(D, newer, att="2.1"))
    assert [(report.kind, report.att, report.code) for report in said] == [
        (Kind.RECALLED, "1.1", "superseded"),
        (Kind.ACCEPTED, "2.1", ""),
    ]
    assert (StopFetch() in bench.effects) is (phase is Phase.DOWNLOADING)
    bench.build = newer
    bench.settle()
    assert bench.unit.running.version == "1.2.0"
    assert "1.1" not in [report.att for report in bench.reports if report.kind is Kind.INSTALLED]


# -- recalls -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.DOWNLOADING, Phase.DOWNLOADED])
def test_what_has_not_begun_is_recalled(issuer: Issuer, good: Build, phase: Phase) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good, pol={"jit": 60})
    bench.command(offer)
    bench.until(phase)
    recall = issuer.recall(D, offer)
    (report,) = bench.command(recall)
    assert (report.kind, report.att) == (Kind.RECALLED, "1.1")
    assert (bench.unit.phase, bench.unit.wake_at, bench.unit.flash.attempt) == (Phase.IDLE, None, None)
    (repeated,) = bench.command(recall)
    assert repeated.kind is Kind.RECALLED
    assert bench.command(offer)[0].code == "stale_seq"
    assert bench.unit.running.version == "1.0.0"


@pytest.mark.parametrize("phase", [Phase.INSTALLING, Phase.TESTING, Phase.IDLE])
def test_what_has_begun_is_too_late_to_recall(issuer: Issuer, good: Build, phase: Phase) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good)
    bench.command(offer)
    bench.until(Phase.WAITING)
    bench.until(phase)
    before = bench.reports[-1]
    recall = issuer.recall(D, offer)
    for _ in range(2):
        (report,) = bench.command(recall)
        assert (report.kind, report.att) == (Kind.TOO_LATE, "1.1")
    assert bench.command(issuer.install(D, good)) == [before]
    bench.settle()
    assert bench.unit.running.version == "1.1.0"


def test_a_recall_of_a_failed_attempt_repeats_the_failure(issuer: Issuer, bad: Build) -> None:
    bench = Bench(profile_with(issuer, "bad"), bad)
    offer = issuer.install(D, bad)
    bench.command(offer)
    bench.settle()
    failed = bench.reports[-1]
    assert bench.command(issuer.recall(D, offer)) == [failed]


def test_a_recall_that_overtakes_its_trigger_wins(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good)
    (report,) = bench.command(issuer.recall(D, offer))
    assert (report.kind, report.att) == (Kind.RECALLED, "1.1")
    assert bench.command(offer)[0].code == "stale_seq"
    assert bench.unit.phase is Phase.IDLE


def test_a_recalled_attempt_can_be_offered_again(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good)
    bench.command(offer)
    bench.until(Phase.DOWNLOADING)
    bench.command(issuer.recall(D, offer))
    bench.command(issuer.install(D, good))
    bench.settle()
    assert bench.kinds[-1] is Kind.CONFIRMED
    numbers = [(report.boot, report.n) for report in bench.reports]
    assert len(set(numbers)) == len(numbers)


def test_a_recall_of_another_update_leaves_the_present_one_alone(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    offer = issuer.install(D, good)
    bench.command(offer)
    bench.until(Phase.DOWNLOADING)
    (report,) = bench.command(issuer.recall(D, offer, att="9.1"))
    assert (report.kind, report.att) == (Kind.RECALLED, "9.1")
    bench.settle()
    assert bench.kinds[-1] is Kind.CONFIRMED


# -- downloads -----------------------------------------------------------------------------------------


def downloading(issuer: Issuer, build: Build, *faults: str, **changes: Any) -> Bench:
    bench = Bench(profile_with(issuer, *faults), build)
    bench.command(issuer.install(D, build, **changes))
    bench.until(Phase.DOWNLOADING)
    return bench


def test_a_download_asks_for_all_urls_from_the_start(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good, url=[f"{ORIGIN}/a", f"{ORIGIN}/b"])
    assert bench.effects[-1] == Fetch((f"{ORIGIN}/a", f"{ORIGIN}/b"), 0, 4096)


def test_a_lost_link_resumes_where_it_broke(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    bench.feed(Opened(0))
    bench.feed(Chunk(good.data[:1500]))
    bench.feed(FetchFailed("link_lost", final=False))
    assert bench.unit.phase is Phase.WAITING
    bench.tick()
    assert bench.effects[-1] == Fetch((f"{ORIGIN}/v1/dl/{good.sha256}",), 1500, 4096)
    bench.settle()
    assert bench.unit.running.version == "1.1.0"


def test_a_server_that_cannot_resume_is_read_from_the_start(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    bench.feed(Opened(0))
    bench.feed(Chunk(b"x" * 1500))
    bench.feed(FetchFailed("link_lost", final=False))
    bench.tick()
    bench.feed(Opened(0))
    bench.feed(Chunk(good.data))
    assert bench.unit.phase is Phase.DOWNLOADED


def test_a_part_from_elsewhere_is_not_taken(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    effects = bench.feed(Opened(17))
    assert effects == (StopFetch(),)
    assert bench.unit.phase is Phase.WAITING
    assert bench.feed(Chunk(good.data[17:])) == ()


def test_wrong_bytes_are_never_installed(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    bench.build = Build(b"\0" * 4096, "1.1.0", 2)
    bench.settle()
    assert [note.code for note in bench.notes if note.event == "failed"] == ["hash_mismatch"]
    assert bench.kinds[-1] is Kind.FAILED
    fetches = [effect for effect in bench.effects if isinstance(effect, Fetch)]
    assert [fetch.offset_bytes for fetch in fetches] == [0] * MAX_TRIES
    assert (bench.unit.flash.boots, states(bench)) == (1, ["valid", "invalid"])


def test_bytes_without_end_are_stopped_at_the_size(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    bench.feed(Opened(0))
    bench.feed(Chunk(good.data[:4000]))
    effects = bench.feed(Chunk(good.data[4000:] + b"!"))
    assert effects[0] == StopFetch()
    assert (bench.reports[-1].kind, bench.reports[-1].code) == (Kind.FAILED, "size_mismatch")


def test_tries_are_limited(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    for left in reversed(range(MAX_TRIES)):
        bench.feed(FetchFailed("link_lost", final=False))
        assert bench.unit.phase is (Phase.WAITING if left else Phase.IDLE)
        if left:
            bench.tick()
    assert (bench.reports[-1].kind, bench.reports[-1].code) == (Kind.FAILED, "link_lost")


def test_an_error_for_good_is_not_tried_again(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good)
    bench.feed(FetchFailed("url_origin", final=True))
    assert (bench.unit.phase, bench.reports[-1].code) == (Phase.IDLE, "url_origin")


def test_the_deadline_ends_a_download(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good, pol={"dl": 30})
    assert bench.unit.wake_at == NOW + 30
    bench.tick()
    assert bench.effects.count(StopFetch()) == 1
    assert (bench.reports[-1].kind, bench.reports[-1].code) == (Kind.FAILED, "download_timeout")


def test_the_deadline_holds_for_retries(issuer: Issuer, good: Build) -> None:
    bench = downloading(issuer, good, pol={"dl": 1})
    bench.feed(FetchFailed("link_lost", final=False))
    bench.tick()
    assert (bench.unit.phase, bench.reports[-1].code) == (Phase.IDLE, "download_timeout")


# -- power ---------------------------------------------------------------------------------------------


def test_power_lost_in_mid_download_resumes_by_range(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer, "power_loss"), good)
    bench.command(issuer.install(D, good))
    bench.until(Phase.OFF)
    assert bench.effects[-3:] == [Note("power_cut"), StopFetch(), Down(sudden=True)]
    bench.tick()
    assert bench.effects[-1] == Fetch((f"{ORIGIN}/v1/dl/{good.sha256}",), 2048, 4096)
    assert (bench.reports[-1].kind, bench.reports[-1].pct, bench.reports[-1].n) == (Kind.PROGRESS, 50, 0)
    bench.settle()
    assert bench.kinds[-1] is Kind.CONFIRMED
    assert (bench.unit.flash.boots, bench.events.count("power_cut")) == (3, 1)


def test_power_lost_before_confirmation_is_a_rollback(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.until(Phase.TESTING)
    bench.feed(PowerCut())
    bench.settle()
    assert (bench.reports[-1].kind, bench.reports[-1].code) == (Kind.ROLLED_BACK, "power_lost")
    assert bench.unit.running.version == "1.0.0"


def test_power_lost_while_off_changes_nothing(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.until(Phase.OFF)
    assert bench.feed(PowerCut()) == ()


def test_a_new_image_waits_for_proof(issuer: Issuer, good: Build) -> None:
    bench = Bench(profile_with(issuer), good)
    bench.command(issuer.install(D, good))
    bench.until(Phase.TESTING)
    assert bench.unit.flash.slots.running.state is SlotState.PENDING_VERIFY
    assert bench.unit.flash.component.rel == 1
    assert digest(good.data) == bench.unit.running.sha256
