"""The table of outcomes: the rows of the reference, the whole product of signs, and what is never confirmed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging.outcome import (
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

OFFERED = Offered(5, 4, "b1", 10, deadline_at=1000.0)
MUTE = replace(OFFERED, boot="", boots=None)
TRIAL = Trial()
BEFORE, PAST = 999.9, 1000.0
V = Verdict

RAN = Seen(rel=5, boot="b2", boots=11)
BACK = Seen(rel=4, boot="b2", boots=11)


@pytest.mark.parametrize(
    ("offered", "seen", "now", "verdict"),
    [
        # the old release, boot count unchanged or +1
        (OFFERED, replace(BACK, boot="b1", boots=10), BEFORE, V.WAITING),
        (OFFERED, replace(BACK, boot="b1", boots=10), PAST, V.FAILED_INSTALL),
        (OFFERED, BACK, BEFORE, V.FAILED_INSTALL),
        # the old release, boot count +2 or more, or it ran the release
        (OFFERED, replace(BACK, boots=12), BEFORE, V.ROLLED_BACK),
        (OFFERED, replace(BACK, boots=40), BEFORE, V.ROLLED_BACK),
        (OFFERED, replace(BACK, ran_new=True), BEFORE, V.ROLLED_BACK),
        (MUTE, Seen(rel=4, ran_new=True), BEFORE, V.ROLLED_BACK),
        (MUTE, Seen(rel=4), BEFORE, V.WAITING),
        (MUTE, Seen(rel=4), PAST, V.FAILED_INSTALL),
        # a boot counter that was erased proves a boot, not two
        (OFFERED, replace(BACK, boots=0), BEFORE, V.FAILED_INSTALL),
        # a third release
        (OFFERED, replace(RAN, rel=3), BEFORE, V.DRIFTED),
        (OFFERED, replace(RAN, rel=9, ran_new=True), BEFORE, V.DRIFTED),
        # no contact
        (OFFERED, None, BEFORE, V.WAITING),
        (OFFERED, None, PAST, V.UNREACHABLE),
        (OFFERED, Seen(boot="b2"), BEFORE, V.WAITING),
        (OFFERED, Seen(boot="b2"), PAST, V.UNREACHABLE),
        # the release, again and again
        (OFFERED, replace(RAN, boots=14, uptime_s=59.0), BEFORE, V.UNSTABLE),
        (OFFERED, replace(RAN, boots=14, uptime_s=60.0), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, boots=13, uptime_s=59.0), BEFORE, V.WAITING),
        # the release
        (OFFERED, RAN, BEFORE, V.WAITING),
        (OFFERED, RAN, PAST, V.UNSTABLE),
        (OFFERED, replace(RAN, uptime_s=600.0), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, uptime_s=600.0), PAST, V.CONFIRMED),
        (OFFERED, replace(RAN, uptime_s=599.0), PAST, V.UNSTABLE),
        # no boot, no proof
        (OFFERED, replace(RAN, boot="b1", boots=10, uptime_s=900.0), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, boot="b1", boots=10, uptime_s=900.0), PAST, V.FAILED_INSTALL),
        (MUTE, Seen(rel=5, uptime_s=900.0), BEFORE, V.WAITING),
        (MUTE, Seen(rel=5, uptime_s=900.0), PAST, V.UNREACHABLE),
        # the boot identifier alone will do
        (replace(MUTE, boot="b1"), replace(RAN, boots=None, uptime_s=600.0), PAST, V.CONFIRMED),
        (replace(MUTE, boot="b1"), replace(RAN, boot="b1", boots=None), BEFORE, V.WAITING),
        (OFFERED, replace(RAN, boots=10, uptime_s=600.0), PAST, V.CONFIRMED),
        # a number that both have tells nothing
        (replace(OFFERED, from_rel=5), replace(RAN, uptime_s=600.0), PAST, V.UNREACHABLE),
    ],
)
def test_every_row_of_the_reference(offered: Offered, seen: Seen | None, now: float, verdict: Verdict) -> None:
    found, reason = judge(offered, seen, TRIAL, now)
    assert found is verdict, reason


EVERYTHING = [
    Signs(heard, due, runs, boots, *flags)
    for heard, due, runs, boots in product((False, True), (False, True), Runs, Boots)
    for flags in product((False, True), repeat=4)
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
        assert read.heard and read.due and read.runs is Runs.NEW and read.boots in LATER and not read.shaky


def test_silence_waits_before_the_deadline_and_never_after() -> None:
    for read in EVERYTHING:
        verdict = row(read).verdict
        assert verdict is not V.UNREACHABLE or read.due
        assert verdict is not V.WAITING or not read.due or read.runs is Runs.OLD and not read.done


counters = st.none() | st.integers(0, 20)
offers = st.builds(
    Offered,
    rel=st.just(5),
    from_rel=st.sampled_from((4, 5)),
    boot=st.sampled_from(("", "b1")),
    boots=counters,
    deadline_at=st.just(1000.0),
)
observations = st.none() | st.builds(
    Seen,
    rel=st.sampled_from((None, 3, 4, 5)),
    boot=st.sampled_from(("", "b1", "b2")),
    boots=counters,
    uptime_s=st.none() | st.floats(0, 2000),
    ran_new=st.booleans(),
)


@given(offers, observations, st.floats(0, 2000))
def test_whatever_is_said_a_confirmation_has_its_proof(offered: Offered, seen: Seen | None, now: float) -> None:
    verdict, reason = judge(offered, seen, TRIAL, now)
    assert reason.code and reason.text
    if now >= offered.deadline_at:
        assert verdict is not V.WAITING
    if verdict is not V.CONFIRMED:
        return
    assert seen is not None and (seen.rel, offered.from_rel) == (5, 4)
    counted = offered.boots is not None and seen.boots is not None
    rebooted = "" not in (offered.boot, seen.boot) and offered.boot != seen.boot
    assert rebooted or (counted and seen.boots != offered.boots)


@given(offers, observations)
def test_a_verdict_before_the_deadline_stands_after_it(offered: Offered, seen: Seen | None) -> None:
    before, after = (judge(offered, seen, TRIAL, now)[0] for now in (BEFORE, PAST))
    assert before in (after, V.WAITING)


def test_signs_are_read_as_they_are_said() -> None:
    read = signs(OFFERED, replace(RAN, uptime_s=700.0), TRIAL, BEFORE)
    assert (read.runs, read.boots, read.stayed, read.due) == (Runs.NEW, Boots.ONE, True, False)
