"""One device in one rollout: every pair of state and fact, deadlines, and what silence means."""

from __future__ import annotations

from itertools import product

import pytest

from orchestrator.core import update
from orchestrator.core.model import MET, RELAPSED, RETRIED, Deadlines, TallyKey, Update, UpdateState
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.update import TABLE, Context, Fact, FactKind, Ignored
from tests.support.builders import make_update

S, F = UpdateState, FactKind
LIMITS = Deadlines(accept_s=1000.0, download_s=100.0, install_s=10.0, confirm_s=1.0)
NOW = Context(LIMITS, stage=0, epoch=0)
OF_THE_DAEMON = {F.OFFER, F.WITHDRAW, F.RECALL, F.UNANSWERED, F.SILENT, F.RETURN, F.SUPERSEDE, F.AGAIN}
ANEW = {(state, F.AGAIN) for state in update.RETRIABLE} | {
    (state, F.RETURN) for state in (S.RETRYING, S.REFUSED, S.POSTPONED)
}


def fact(kind: FactKind, **changes: int | str) -> Fact:
    """Return a fact about attempt 1 by a device that runs what it should, or a fact of the daemon."""
    said = {} if kind in OF_THE_DAEMON else {"attempt": 1, "rel": 2}
    return Fact(kind, **(said | changes))  # type: ignore[arg-type]


def walk(*kinds: FactKind, start: Update | None = None, context: Context = NOW) -> Update:
    """Fold facts that must all move the update."""
    here = start or make_update(S.PENDING)
    for at, kind in enumerate(kinds, start=1):
        moved = update.apply(here, fact(kind), context, float(at))
        assert isinstance(moved, Update), (kind, moved)
        here = moved
    return here


@pytest.mark.parametrize(("state", "kind"), list(product(UpdateState, FactKind)))
def test_every_pair_moves_as_the_table_says_or_is_ignored_with_a_reason(state: UpdateState, kind: FactKind) -> None:
    before = make_update(state, begun=True, progress=40)
    after = update.apply(before, fact(kind), NOW, 5.0)
    target = TABLE[state].get(kind)
    if target is None:
        assert after == Ignored("not_offered" if state is S.PENDING else "repeated")
    else:
        assert isinstance(after, Update)
        state_at = before.state_at if (state, kind) == (S.PENDING, F.UNANSWERED) else 5.0
        assert (after.state, after.state_at, after.attempt) == (target, state_at, 2 if (state, kind) in ANEW else 1)


def test_the_ladder_holds_every_state_of_an_offered_device_once() -> None:
    assert len(set(update.LADDER)) == len(update.LADDER)
    assert set(UpdateState) - set(update.LADDER) == {S.PENDING, S.SUPERSEDED}


def test_devices_only_climb() -> None:
    rung = {state: height for height, state in enumerate(update.LADDER)}
    for state, moves in TABLE.items():
        for kind, target in moves.items():
            assert kind in OF_THE_DAEMON or rung[target] > rung[state]


def test_every_state_counts_in_exactly_one_way() -> None:
    kinds = [update.IN_FLIGHT, update.FAILURES, update.NEUTRAL, frozenset({S.CONFIRMED})]
    assert sum(map(len, kinds)) == len(UpdateState)
    assert frozenset.union(*kinds) == set(UpdateState)
    assert set(update.RESOLVED) == {S.CONFIRMED, *update.FAILURES}


def test_only_a_person_leads_a_device_out_of_a_failure() -> None:
    moves = [(kind, target) for state in update.FAILURES for kind, target in TABLE[state].items()]
    assert {kind for kind, target in moves if target not in update.FAILURES} == {F.AGAIN}
    assert {state for state, targets in TABLE.items() if F.AGAIN in targets} == update.RETRIABLE


def test_only_superseding_is_final_for_every_fact() -> None:
    assert {state for state, moves in TABLE.items() if not moves} == {S.SUPERSEDED}


PASSING = Context(
    LIMITS, 0, 0, RetryPolicy(transient=Retry(attempts=2, base_s=7.0, jitter=0.0), unexplained=Retry(1, 1.0))
)


@pytest.mark.parametrize("state", [S.OFFERED, S.ACCEPTED, S.DOWNLOADED, S.RECALLING])
def test_a_failure_that_passes_is_tried_again_as_another_attempt(state: UpdateState) -> None:
    before = make_update(state, begun=True, progress=40)
    waits = update.apply(before, fact(F.FAILED, code="link_lost"), PASSING, 5.0)
    assert isinstance(waits, Update)
    assert (waits.state, waits.deadline_at, waits.code, waits.begun) == (S.RETRYING, 12.0, "link_lost", False)
    assert update.contributions(waits) == (TallyKey(0, 0, "m1", S.RETRYING),)
    assert update.silence(waits) is F.RETURN
    back = update.apply(waits, Fact(F.RETURN), PASSING, 12.0)
    assert isinstance(back, Update)
    assert (back.state, back.attempt, back.progress, back.deadline_at) == (S.PENDING, 2, 0, None)


@pytest.mark.parametrize("state", [S.INSTALLED, S.RUNNING, S.CONFIRMED])
def test_once_installed_a_failure_that_passes_says_nothing_more(state: UpdateState) -> None:
    after = update.apply(make_update(state, begun=True), fact(F.FAILED, code="link_lost"), PASSING, 5.0)
    assert isinstance(after, Ignored) or after.state is state


def test_any_other_failure_is_one_at_once() -> None:
    after = update.apply(make_update(S.ACCEPTED), fact(F.FAILED, code="bad_hash"), PASSING, 5.0)
    assert isinstance(after, Update)
    assert after.state is S.FAILED


def test_the_last_attempt_is_a_failure_whatever_the_reason() -> None:
    last = make_update(S.ACCEPTED, attempt=2)
    after = update.apply(last, Fact(F.FAILED, attempt=2, code="link_lost"), PASSING, 5.0)
    assert isinstance(after, Update)
    assert (after.state, after.deadline_at) == (S.FAILED, None)


def test_a_failure_that_counts_may_still_be_tried_again_by_itself() -> None:
    policy = Context(LIMITS, 0, 0, RetryPolicy(unexplained=Retry(attempts=2, base_s=7.0, jitter=0.0)))
    failed = update.apply(make_update(S.RUNNING), fact(F.FAILED, code="self_test_crash"), policy, 5.0)
    assert isinstance(failed, Update)
    assert (failed.state, failed.deadline_at, update.silence(failed)) == (S.FAILED, 12.0, F.AGAIN)
    again = update.apply(failed, Fact(F.AGAIN), policy, 12.0)
    assert isinstance(again, Update)
    assert (again.state, again.attempt, again.failed_epoch, again.deadline_at) == (S.PENDING, 2, 0, None)


def test_a_refusal_of_the_token_gets_a_new_one_and_any_other_is_final() -> None:
    stale = update.apply(make_update(S.OFFERED), fact(F.REFUSED, code="stale_seq"), PASSING, 5.0)
    assert isinstance(stale, Update)
    assert (stale.state, stale.deadline_at, update.silence(stale)) == (S.POSTPONED, 12.0, F.RETURN)
    assert stale.state in update.NEUTRAL
    begun = update.apply(stale, fact(F.ACCEPTED), PASSING, 6.0)
    assert isinstance(begun, Update)
    assert (begun.state, begun.deadline_at) == (S.ACCEPTED, 106.0)
    back = update.apply(stale, Fact(F.RETURN), PASSING, 12.0)
    assert isinstance(back, Update)
    assert (back.state, back.attempt) == (S.PENDING, 2)
    final = update.apply(make_update(S.OFFERED), fact(F.REFUSED, code="wrong_hardware"), PASSING, 5.0)
    assert isinstance(final, Update)
    assert (final.state, final.deadline_at) == (S.REFUSED, None)


def test_what_a_device_did_after_it_gave_up_counts() -> None:
    waits = make_update(S.RETRYING, deadline_at=12.0)
    for kind in (F.INSTALLED, F.CONFIRMED, F.RECALLED, F.ROLLED_BACK):
        after = update.apply(waits, fact(kind), PASSING, 6.0)
        assert isinstance(after, Update)
        assert after.attempt == 1


def test_another_attempt_by_a_person_keeps_the_failure_as_evidence() -> None:
    failed = make_update(S.FAILED, stage=1, epoch=2, code="bad_hash")
    again = update.apply(failed, Fact(F.AGAIN), NOW, 5.0)
    assert isinstance(again, Update)
    assert (again.state, again.attempt, again.failed_epoch) == (S.PENDING, 2, 2)
    kept, met = TallyKey(2, 1, "m1", RETRIED), TallyKey(2, 1, "m1", MET)
    assert update.contributions(again) == (TallyKey(2, 1, "m1", S.PENDING), kept, met)
    assert update.contributions(again._replace(state=S.OFFERED)) == (TallyKey(2, 1, "m1", S.OFFERED), kept)
    later = update.contributions(again._replace(state=S.CONFIRMED, epoch=3))
    assert later == (TallyKey(3, 1, "m1", S.CONFIRMED), kept, met)


def test_a_device_that_fails_twice_in_one_epoch_is_one_failure() -> None:
    twice = make_update(S.FAILED, epoch=2, failed_epoch=2)
    assert update.contributions(twice) == (TallyKey(2, 0, "m1", S.FAILED),)
    later = update.contributions(twice._replace(epoch=3))
    assert later == (TallyKey(3, 0, "m1", S.FAILED), TallyKey(2, 0, "m1", RETRIED), TallyKey(2, 0, "m1", MET))


def test_another_attempt_after_a_relapse_keeps_the_epoch_of_the_relapse() -> None:
    relapsed = make_update(S.ROLLED_BACK, epoch=0, relapsed_stage=3, relapsed_epoch=1)
    again = update.apply(relapsed, Fact(F.AGAIN), NOW, 5.0)
    assert isinstance(again, Update)
    assert (again.relapsed_stage, again.failed_epoch) == (None, 1)


@pytest.mark.parametrize("state", [S.INSTALLED, S.RUNNING, S.CONFIRMED, S.TOO_LATE, *sorted(update.FAILURES)])
def test_what_is_installed_can_be_neither_recalled_nor_superseded(state: UpdateState) -> None:
    assert TABLE[state].keys().isdisjoint({F.RECALL, F.RECALLED, F.RETURN, F.SUPERSEDE, F.WITHDRAW})


def test_a_good_update_and_its_deadlines() -> None:
    here, deadlines = make_update(S.PENDING), []
    for kind in (F.OFFER, F.ACCEPTED, F.DOWNLOADED, F.INSTALLED, F.RUNNING, F.CONFIRMED):
        here = walk(kind, start=here)
        deadlines.append(here.deadline_at)
    assert deadlines == [1001.0, 101.0, 11.0, 2.0, 2.0, None]
    assert (here.state, here.begun) == (S.CONFIRMED, True)


def test_the_time_to_confirm_counts_from_the_reboot() -> None:
    installed = update.apply(make_update(S.DOWNLOADED), fact(F.INSTALLED), NOW, 50.0)
    assert isinstance(installed, Update)
    running = update.apply(installed, fact(F.RUNNING), NOW, 50.9)
    assert isinstance(running, Update)
    assert (running.state, running.state_at, running.deadline_at) == (S.RUNNING, 50.9, 51.0)


def test_running_without_a_report_of_the_reboot_has_its_own_deadline() -> None:
    assert walk(F.OFFER, F.ACCEPTED, F.RUNNING).deadline_at == 4.0


def test_recalls_and_late_ones_have_deadlines() -> None:
    assert walk(F.OFFER, F.RECALL).deadline_at == 1002.0
    assert walk(F.OFFER, F.RECALL, F.TOO_LATE).deadline_at == 14.0
    assert walk(F.OFFER, F.RECALL, F.RECALLED).deadline_at is None


@pytest.mark.parametrize(
    ("said", "silent", "ends"),
    [
        ((), F.UNANSWERED, S.UNREACHED),
        ((F.ACCEPTED,), F.SILENT, S.EXPIRED),
        ((F.DOWNLOADED,), F.SILENT, S.EXPIRED),
        ((F.INSTALLED,), F.SILENT, S.LOST),
        ((F.INSTALLED, F.RUNNING), F.SILENT, S.LOST),
        ((F.RECALL,), F.UNANSWERED, S.UNREACHED),
        ((F.ACCEPTED, F.RECALL), F.SILENT, S.EXPIRED),
        ((F.RECALL, F.TOO_LATE), F.SILENT, S.EXPIRED),
    ],
)
def test_silence_is_judged_by_what_was_said_before(
    said: tuple[FactKind, ...], silent: FactKind, ends: UpdateState
) -> None:
    here = walk(F.OFFER, *said)
    assert here.deadline_at is not None
    assert update.silence(here) is silent
    after = walk(silent, start=here)
    assert (after.state, after.deadline_at) == (ends, None)


def test_a_device_heard_during_its_recall_has_begun() -> None:
    recalling = walk(F.OFFER, F.RECALL)
    heard = update.apply(recalling, fact(F.PROGRESS, progress=30), NOW, 9.0)
    assert isinstance(heard, Update)
    assert (heard.state, heard.begun, heard.progress) == (S.RECALLING, True, 30)
    assert heard.deadline_at == recalling.deadline_at
    assert update.silence(heard) is F.SILENT


def test_who_was_kept_from_an_offer_and_comes_back_is_waited_for_since_it_was_taken_in() -> None:
    waits = make_update(S.PENDING)._replace(state_at=3.0)
    kept = update.apply(waits, fact(F.UNANSWERED, code="battery"), NOW, 50.0)
    assert isinstance(kept, Update)
    assert (kept.state, kept.state_at, kept.code, update.silence(kept)) == (S.UNREACHED, 3.0, "battery", F.RETURN)
    back = update.apply(kept, fact(F.RETURN), NOW, 60.0)
    assert isinstance(back, Update)
    assert (back.state, back.state_at, back.code, back.attempt) == (S.PENDING, 3.0, "", 1)
    set_back = update.apply(kept, fact(F.RETURN), NOW, 2.0)
    assert isinstance(set_back, Update) and set_back.state_at == 2.0


def test_an_unreached_device_may_still_come_or_get_another_offer() -> None:
    unreached = walk(F.OFFER, F.UNANSWERED)
    assert walk(F.ACCEPTED, start=unreached).state is S.ACCEPTED
    again = walk(F.RETURN, F.OFFER, start=unreached)
    assert (again.state, again.attempt, again.begun) == (S.OFFERED, 1, False)


def test_a_recalled_device_is_offered_again_without_burning_an_attempt() -> None:
    recalled = walk(F.OFFER, F.ACCEPTED, F.RECALL, F.RECALLED)
    again = walk(F.RETURN, F.OFFER, start=recalled, context=Context(LIMITS, stage=0, epoch=1))
    assert (again.state, again.attempt, again.epoch, again.begun) == (S.OFFERED, 1, 1, False)


def test_an_offer_fixes_the_epoch_and_clears_the_progress() -> None:
    here = make_update(S.PENDING, epoch=0, progress=70)
    offered = walk(F.OFFER, start=here, context=Context(LIMITS, stage=0, epoch=3))
    assert (offered.epoch, offered.progress) == (3, 0)
    assert walk(F.ACCEPTED, start=offered, context=Context(LIMITS, stage=0, epoch=4)).epoch == 3


def test_progress_rises_only() -> None:
    here = walk(F.OFFER, F.ACCEPTED)
    for said, shown in ((10, 10), (60, 60)):
        moved = update.apply(here, fact(F.PROGRESS, progress=said), NOW, 9.0)
        assert isinstance(moved, Update)
        assert (moved.state, moved.progress, moved.state_at) == (S.ACCEPTED, shown, 2.0)
        here = moved
    assert update.apply(here, fact(F.PROGRESS, progress=20), NOW, 9.0) == Ignored("repeated")


def test_reason_codes_are_kept() -> None:
    failed = update.apply(walk(F.OFFER, F.ACCEPTED), fact(F.FAILED, code="hash_mismatch"), NOW, 9.0)
    assert isinstance(failed, Update)
    assert (failed.state, failed.code) == (S.FAILED, "hash_mismatch")


@pytest.mark.parametrize("kind", [F.RUNNING, F.CONFIRMED])
@pytest.mark.parametrize("rel", [None, 1, 3])
def test_health_on_another_release_is_a_failure(kind: FactKind, rel: int | None) -> None:
    said = Fact(kind, attempt=1, rel=rel)
    after = update.apply(walk(F.OFFER, F.ACCEPTED, F.INSTALLED), said, NOW, 9.0)
    assert isinstance(after, Update)
    assert (after.state, after.code) == (S.FAILED, "wrong_release")


@pytest.mark.parametrize("kind", sorted(set(FactKind) - OF_THE_DAEMON))
@pytest.mark.parametrize("attempt", [0, 2])
def test_facts_of_another_attempt_change_nothing(kind: FactKind, attempt: int) -> None:
    for state in UpdateState:
        after = update.apply(make_update(state), fact(kind, attempt=attempt), NOW, 9.0)
        assert after == Ignored("other_attempt")


def test_a_relapse_in_the_current_stage_turns_the_device_into_a_failure() -> None:
    relapsed = walk(F.ROLLED_BACK, start=make_update(S.CONFIRMED))
    assert update.contributions(relapsed) == (TallyKey(0, 0, "m1", S.ROLLED_BACK),)


@pytest.mark.parametrize("kind", [F.FAILED, F.ROLLED_BACK])
def test_a_relapse_after_its_stage_was_judged_counts_in_the_current_one(kind: FactKind) -> None:
    before = make_update(S.CONFIRMED, epoch=1)
    relapsed = walk(kind, start=before, context=Context(LIMITS, stage=2, epoch=3))
    assert update.contributions(relapsed) == (TallyKey(1, 0, "m1", S.CONFIRMED), TallyKey(3, 2, "m1", RELAPSED))
    assert update.tally_changes([before], [relapsed]) == {TallyKey(3, 2, "m1", RELAPSED): 1}


def test_a_relapse_counts_once() -> None:
    later = Context(LIMITS, stage=2, epoch=3)
    relapsed = walk(F.FAILED, start=make_update(S.CONFIRMED), context=later)
    worse = walk(F.ROLLED_BACK, start=relapsed, context=Context(LIMITS, stage=3, epoch=4))
    assert worse.state is S.ROLLED_BACK
    assert update.tally_changes([relapsed], [worse]) == {}


def test_changes_of_a_new_update_are_all_it_counts_as() -> None:
    pending = make_update(S.PENDING)
    offered = walk(F.OFFER, start=pending, context=Context(LIMITS, stage=0, epoch=1))
    assert update.tally_changes([], [pending]) == {TallyKey(0, 0, "m1", "pending"): 1}
    assert update.tally_changes([pending], [offered]) == {
        TallyKey(0, 0, "m1", "pending"): -1,
        TallyKey(1, 0, "m1", "offered"): 1,
    }
    assert update.tally_changes([offered], [offered]) == {}
