"""The table of outcomes: the rows of the reference, the whole product of signs, and what is never confirmed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.outcome import (
    LATER,
    TABLE,
    Boots,
    Offered,
    Runs,
    Seen,
    Signs,
    Trial,
    Verdict,
    judge,
    row,
    signs,
)

NEW, OLD, THIRD = ("n" * 43), ("o" * 43), ("t" * 43)
OFFERED = Offered(5, NEW, 4, OLD, "b1", 10, True, deadline_at=1000.0)
SINGLE = replace(OFFERED, two_slots=False)
MUTE = replace(OFFERED, boot="", boots=None)
TRIAL = Trial()
BEFORE, PAST = 999.9, 1000.0
V = Verdict

RAN = Seen(rel=5, sha256=NEW[:12], boot="b2", boots=11)
BACK = Seen(rel=4, sha256=OLD[:12], boot="b2", boots=11)


@pytest.mark.parametrize(
    ("offered", "seen", "now", "verdict"),
    [
        # old hash, boot count unchanged or +1
        (OFFERED, replace(BACK, boot="b1", boots=10, asks=True), BEFORE, V.FAILED_INSTALL),
        (OFFERED, replace(BACK, boot="b1", boots=10), BEFORE, V.WAITING),
        (OFFERED, replace(BACK, boot="b1", boots=10), PAST, V.FAILED_INSTALL),
        (OFFERED, BACK, BEFORE, V.FAILED_INSTALL),
        # old hash, boot count +2 or more, or the other slot given up
        (OFFERED, replace(BACK, boots=12), BEFORE, V.ROLLED_BACK),
        (OFFERED, replace(BACK, boots=40), BEFORE, V.ROLLED_BACK),
        (OFFERED, replace(BACK, gave_up_slot=True), BEFORE, V.ROLLED_BACK),
        (OFFERED, Seen(gave_up_slot=True), BEFORE, V.ROLLED_BACK),
        # a boot counter that was erased proves a boot, not two
        (OFFERED, replace(BACK, boots=0), BEFORE, V.FAILED_INSTALL),
        # old hash, no telemetry, two slots, had reported the target
        (MUTE, Seen(sha256=OLD, ran_new=True), BEFORE, V.ROLLED_BACK),
        (MUTE, Seen(sha256=OLD), PAST, V.FAILED_INSTALL),
        # old hash, one slot: it cannot roll back
        (replace(MUTE, two_slots=False), Seen(sha256=OLD, asks=True), BEFORE, V.FAILED_INSTALL),
        (SINGLE, replace(BACK, boots=12), BEFORE, V.FAILED_INSTALL),
        (SINGLE, replace(BACK, ran_new=True), BEFORE, V.DRIFTED),
        # a third version or hash
        (OFFERED, replace(RAN, rel=3, sha256=""), BEFORE, V.DRIFTED),
        (OFFERED, replace(RAN, rel=None, sha256=THIRD), BEFORE, V.DRIFTED),
        (OFFERED, replace(RAN, sha256=THIRD), BEFORE, V.DRIFTED),
        (OFFERED, replace(RAN, rel=4), BEFORE, V.DRIFTED),
        # no contact
        (OFFERED, None, BEFORE, V.WAITING),
        (OFFERED, None, PAST, V.UNREACHABLE),
        (OFFERED, Seen(boot="b2"), BEFORE, V.WAITING),
        (OFFERED, Seen(boot="b2"), PAST, V.UNREACHABLE),
        # the release, again and again
        (OFFERED, replace(RAN, boots=14, uptime_s=59.0), BEFORE, V.UNSTABLE),
        (OFFERED, replace(RAN, boots=14, uptime_s=59.0, healthy=True), BEFORE, V.UNSTABLE),
        (OFFERED, replace(RAN, boots=14, uptime_s=60.0), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, boots=13, uptime_s=59.0), BEFORE, V.WAITING),
        # the release
        (OFFERED, RAN, BEFORE, V.WAITING),
        (OFFERED, RAN, PAST, V.UNSTABLE),
        (OFFERED, replace(RAN, healthy=True), BEFORE, V.CONFIRMED),
        (OFFERED, replace(RAN, uptime_s=600.0), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, uptime_s=600.0), PAST, V.CONFIRMED),
        (OFFERED, replace(RAN, uptime_s=599.0), PAST, V.UNSTABLE),
        # no boot, no proof
        (OFFERED, replace(RAN, boot="b1", boots=10, healthy=True), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, boot="b1", boots=10, healthy=True), PAST, V.FAILED_INSTALL),
        (replace(MUTE, from_sha256=""), Seen(rel=5, healthy=True), BEFORE, V.WAITING),
        (replace(MUTE, from_sha256=""), Seen(rel=5, healthy=True), PAST, V.UNREACHABLE),
        # an image does not change without a boot
        (MUTE, Seen(sha256=NEW, healthy=True), BEFORE, V.CONFIRMED),
        (MUTE, Seen(rel=5, healthy=True), BEFORE, V.WAITING),
        (replace(MUTE, from_sha256=NEW), Seen(sha256=NEW, healthy=True), BEFORE, V.WAITING),
        # the boot identifier alone will do
        (replace(MUTE, boot="b1"), replace(RAN, boots=None, healthy=True), BEFORE, V.CONFIRMED),
        (replace(MUTE, boot="b1"), replace(RAN, boot="b1", boots=None, healthy=True), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, boots=10, healthy=True), BEFORE, V.CONFIRMED),
    ],
)
def test_every_row_of_the_reference(offered: Offered, seen: Seen | None, now: float, verdict: Verdict) -> None:
    found, reason = judge(offered, seen, TRIAL, now)
    assert found is verdict, reason


@pytest.mark.parametrize(
    ("offered", "seen", "runs"),
    [
        (OFFERED, Seen(sha256=NEW[:7]), Runs.UNKNOWN),
        (OFFERED, Seen(sha256=NEW[:8]), Runs.NEW),
        (OFFERED, Seen(sha256=OLD[:8]), Runs.OLD),
        (OFFERED, Seen(rel=4), Runs.OLD),
        (replace(OFFERED, from_sha256=""), Seen(rel=4, sha256=OLD), Runs.OLD),
        (replace(OFFERED, from_sha256=""), Seen(sha256=OLD), Runs.OTHER),
        (replace(OFFERED, from_sha256=""), Seen(rel=5, sha256=OLD), Runs.OTHER),
        (OFFERED, Seen(rel=5, sha256=NEW), Runs.NEW),
        (replace(OFFERED, from_rel=5), Seen(rel=5), Runs.UNKNOWN),
        (replace(OFFERED, from_rel=5), Seen(rel=5, sha256=NEW), Runs.NEW),
        (replace(OFFERED, from_rel=5), Seen(rel=5, sha256=OLD), Runs.OLD),
        (replace(OFFERED, from_rel=5, from_sha256=""), Seen(rel=5, sha256=OLD), Runs.OTHER),
    ],
)
def test_what_runs_is_read_from_hash_and_number(offered: Offered, seen: Seen, runs: Runs) -> None:
    assert signs(offered, seen, TRIAL, BEFORE).runs is runs


EVERYTHING = [
    Signs(heard, due, runs, boots, *flags)
    for heard, due, runs, boots in product((False, True), (False, True), Runs, Boots)
    for flags in product((False, True), repeat=7)
]


def test_the_table_is_total_and_every_row_is_the_first_for_something() -> None:
    answered = {(found.verdict, found.code) for found in map(row, EVERYTHING)}
    assert answered == {(line.verdict, line.code) for line in TABLE}
    first = {id(row(read)) for read in EVERYTHING}
    assert first == {id(line) for line in TABLE}


def test_every_sign_that_a_row_names_is_one() -> None:
    assert {sign for line in TABLE for sign in line.when} <= set(Signs._fields)


def test_nothing_is_confirmed_without_the_release_after_a_later_boot() -> None:
    confirmed = [read for read in EVERYTHING if row(read).verdict is V.CONFIRMED]
    assert confirmed
    for read in confirmed:
        assert read.heard and read.runs is Runs.NEW and read.boots in LATER and not read.shaky


def test_silence_waits_before_the_deadline_and_never_after() -> None:
    for read in EVERYTHING:
        verdict = row(read).verdict
        assert verdict is not V.UNREACHABLE or read.due
        assert verdict is not V.WAITING or not read.due or read.runs is Runs.OLD and not read.done


hashes = st.sampled_from(("", NEW, NEW[:8], NEW[:5], OLD, OLD[:10], THIRD))
counters = st.none() | st.integers(0, 20)
offers = st.builds(
    Offered,
    rel=st.just(5),
    sha256=st.just(NEW),
    from_rel=st.sampled_from((4, 5)),
    from_sha256=st.sampled_from(("", OLD, NEW)),
    boot=st.sampled_from(("", "b1")),
    boots=counters,
    two_slots=st.booleans(),
    deadline_at=st.just(1000.0),
)
observations = st.none() | st.builds(
    Seen,
    rel=st.sampled_from((None, 3, 4, 5)),
    sha256=hashes,
    boot=st.sampled_from(("", "b1", "b2")),
    boots=counters,
    uptime_s=st.none() | st.floats(0, 2000),
    gave_up_slot=st.booleans(),
    ran_new=st.booleans(),
    healthy=st.booleans(),
    asks=st.booleans(),
)


@given(offers, observations, st.floats(0, 2000))
def test_whatever_is_said_a_confirmation_has_its_proof(offered: Offered, seen: Seen | None, now: float) -> None:
    verdict, reason = judge(offered, seen, TRIAL, now)
    assert reason.code and reason.text
    if now >= offered.deadline_at:
        assert verdict is not V.WAITING
    if verdict is not V.CONFIRMED:
        return
    assert seen is not None
    long_enough = seen.sha256 if len(seen.sha256) >= 8 else ""
    assert (seen.rel == 5 and offered.from_rel != 5) or long_enough
    assert seen.rel in (None, 5) and NEW.startswith(long_enough)
    counted = offered.boots is not None and seen.boots is not None
    rebooted = "" not in (offered.boot, seen.boot) and offered.boot != seen.boot
    changed = bool(long_enough) and offered.from_sha256 == OLD
    assert rebooted or (counted and seen.boots != offered.boots) or (changed and not counted)


@given(offers, observations)
def test_a_verdict_before_the_deadline_stands_after_it(offered: Offered, seen: Seen | None) -> None:
    before, after = (judge(offered, seen, TRIAL, now)[0] for now in (BEFORE, PAST))
    assert before in (after, V.WAITING)
