"""What a person may do to a rollout: every phase and command, repeats, reasons and effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest

from orchestrator.core import rollout as machine
from orchestrator.core.judging import evidence, judgement
from orchestrator.core.model import RETRIED, Phase, Rollout, Stage, TallyKey
from orchestrator.core.rollout import (
    TABLE,
    WITHIN,
    Again,
    Carry,
    Command,
    Prepare,
    Recall,
    Return,
    VoidQueued,
    possible,
)
from orchestrator.errors import ConflictError, RequestError
from tests.support.builders import REST, make_draft, make_plan, make_rollout, make_tally

P, C = Phase, Command
LEGAL = [(phase, command, target) for phase, moves in TABLE.items() for command, target in moves.items()]
HOLDS_ALREADY = {
    (P.PREPARING, C.START),
    (P.PREPARING, C.RESUME),
    (P.RUNNING, C.START),
    (P.RUNNING, C.RESUME),
    (P.PAUSED, C.PAUSE),
    (P.HALTED, C.HALT),
    (P.ABORTED, C.ABORT),
}


def in_phase(phase: Phase) -> Rollout:
    if phase in (P.DRAFT, P.PREPARING):
        return make_draft(phase=phase)
    return make_rollout(phase=phase)


def operate(rollout: Rollout, command: Command, reason: str = "because") -> machine.Decision:
    return machine.operate(rollout, {}, command, actor="bea", reason=reason, now=50.0)


def test_the_table_has_every_phase_and_nothing_leaves_a_finished_one() -> None:
    assert set(TABLE) == set(Phase)
    assert {phase for phase, moves in TABLE.items() if not moves} == machine.FINISHED
    assert all(target is P.ABORTED for _, command, target in LEGAL if command is C.ABORT)


@pytest.mark.parametrize(("phase", "command", "target"), LEGAL)
def test_a_legal_command_moves_the_rollout(phase: Phase, command: Command, target: Phase) -> None:
    before = in_phase(phase)
    after = operate(before, command).rollout
    assert (after.phase, after.actor, after.moved_at) == (target, "bea", 50.0)
    assert (after.reason.code, after.reason.text) == (f"operator_{command}", "because")
    assert after.version > before.version


@pytest.mark.parametrize(("phase", "command"), sorted(HOLDS_ALREADY))
def test_repeating_what_holds_already_changes_nothing(phase: Phase, command: Command) -> None:
    before = in_phase(phase)
    decision = operate(before, command)
    assert decision.rollout is before
    assert (decision.effects, decision.reason.code) == ((), "unchanged")


@pytest.mark.parametrize(
    ("phase", "command"),
    [pair for pair in product(Phase, Command) if pair[1] not in possible(pair[0]) and pair not in HOLDS_ALREADY],
)
def test_every_other_command_is_refused_and_says_what_is_possible(phase: Phase, command: Command) -> None:
    with pytest.raises(ConflictError) as refused:
        operate(in_phase(phase), command)
    answers = ", ".join(possible(phase)) or "nothing"
    assert refused.value.message == f"cannot {command} a rollout that is {phase}; possible: {answers}"


@pytest.mark.parametrize(
    ("phase", "command", "effects"),
    [
        (P.DRAFT, C.START, (Prepare(),)),
        (P.RUNNING, C.PAUSE, (VoidQueued(),)),
        (P.RUNNING, C.HALT, (VoidQueued(), Recall())),
        (P.PAUSED, C.HALT, (VoidQueued(), Recall())),
        (P.INCONCLUSIVE, C.HALT, (VoidQueued(), Recall())),
        (P.HALTED, C.ABORT, (VoidQueued(), Recall())),
        (P.PAUSED, C.RESUME, (Return(),)),
        (P.HALTED, C.RESUME, (Carry(), Return())),
    ],
)
def test_effects(phase: Phase, command: Command, effects: tuple[machine.Effect, ...]) -> None:
    assert operate(in_phase(phase), command).effects == effects


def test_without_a_reason_the_rollout_says_who_did_it() -> None:
    assert operate(in_phase(P.RUNNING), C.PAUSE, " ").rollout.reason.text == "pause by bea"
    assert operate(in_phase(P.PAUSED), C.RESUME, "").rollout.reason.text == "resume by bea"


@pytest.mark.parametrize("phase", [P.HALTED, P.INCONCLUSIVE])
@pytest.mark.parametrize("reason", ["", "  \n"])
def test_resuming_against_evidence_needs_a_reason(phase: Phase, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        operate(in_phase(phase), C.RESUME, reason)
    assert refused.value.code == "reason_needed"


@pytest.mark.parametrize(("phase", "epoch"), [(P.HALTED, 1), (P.PAUSED, 0), (P.INCONCLUSIVE, 0)])
def test_only_a_resume_after_a_halt_opens_an_evidence_epoch(phase: Phase, epoch: int) -> None:
    assert operate(in_phase(phase), C.RESUME).rollout.epoch == epoch


def test_resuming_an_inconclusive_rollout_lets_its_stage_pass() -> None:
    after = operate(in_phase(P.INCONCLUSIVE), C.RESUME).rollout
    assert (after.phase, after.stage, after.current.waived) == (P.RUNNING, 0, True)
    decision = judgement.step(after, make_tally({"confirmed": 18, "failed": 1, "unreached": 1}), 60.0)
    assert (decision.rollout.stage, decision.rollout.stages[0].passed_at) == (1, 60.0)
    assert decision.rollout.current == Stage(base=60, target=60)


def test_resuming_an_inconclusive_last_stage_ends_the_rollout_when_nobody_is_under_way() -> None:
    before = make_rollout(make_plan((REST,)), 100, phase=P.INCONCLUSIVE)
    after = operate(before, C.RESUME, "the rest is in a drawer").rollout
    counts = {"unreached": 60, "confirmed": 39}
    waits = judgement.step(after, make_tally(counts | {"running": 1}), 60.0)
    assert (waits.rollout.phase, waits.reason.code) == (P.RUNNING, "finishing")
    done = judgement.step(after, make_tally(counts | {"confirmed": 40}), 60.0).rollout
    assert (done.phase, done.actor, done.reason.text) == (P.DONE, "bea", "the rest is in a drawer")


def test_a_waived_stage_still_halts() -> None:
    after = operate(in_phase(P.INCONCLUSIVE), C.RESUME).rollout
    assert judgement.step(after, make_tally({"confirmed": 16, "failed": 4}), 60.0).rollout.phase is P.HALTED


@pytest.mark.parametrize("phase", [P.PAUSED, P.HALTED])
def test_resuming_before_the_cohort_is_known_goes_on_preparing(phase: Phase) -> None:
    decision = operate(make_draft(phase=phase), C.RESUME)
    assert (decision.rollout.phase, decision.rollout.epoch) == (P.PREPARING, 0)
    assert decision.effects == (Prepare(),)


def test_a_counted_cohort_starts_the_rollout() -> None:
    before = make_draft(phase=P.PREPARING)
    after = machine.prepared(before, 200, 3, 60.0).rollout
    assert (after.phase, after.cohort_size, after.cohort_at, after.strata) == (P.RUNNING, 200, 60.0, 3)
    assert [stage.base for stage in after.stages] == [20, 60, 120]
    assert after.reason.text == "200 devices in 3 stages"
    assert machine.prepared(before, 5, 0, 60.0).rollout.strata == 1


def test_an_empty_cohort_sends_the_rollout_back_to_draft() -> None:
    decision = machine.prepared(make_draft(phase=P.PREPARING), 0, 0, 60.0)
    assert (decision.rollout.phase, decision.reason.code) == (P.DRAFT, "empty_cohort")
    assert decision.rollout.cohort_size is None
    assert operate(decision.rollout, C.START).rollout.phase is P.PREPARING


@pytest.mark.parametrize(("confirmed", "slots"), [(0, 10), (10, 10), (11, 11), (99, 99), (100, 100), (5000, 100)])
def test_slots_are_earned_by_confirmed_devices(confirmed: int, slots: int) -> None:
    assert judgement.slots(make_plan(in_flight=100), confirmed) == slots
    assert judgement.slots(make_plan(in_flight=4), confirmed) == 4


def test_fewer_devices_than_expected_shrink_stage_and_cohort() -> None:
    plan = make_plan((20, 60, REST))
    before = make_rollout(plan, 200, stage=1)
    tally = make_tally({"confirmed": 20}) + make_tally({"pending": 31}, stage=1)
    after = machine.exhausted(before, tally)
    assert after == replace(
        before, cohort_size=51, stages=(before.stages[0], Stage(base=60, target=31), before.stages[2])
    )


def test_devices_that_wait_for_the_last_stage_stay_in_the_cohort() -> None:
    before = make_rollout(make_plan((20, 60, REST)), 200, stage=1)
    tally = make_tally({"confirmed": 20}) + make_tally({"pending": 31}, stage=1)
    after = machine.exhausted(before, tally, late=149)
    drained = Stage(base=60, target=31, drained=True)
    assert after == replace(before, stages=(before.stages[0], drained, before.stages[2]))


FAILED = make_tally({"confirmed": 17, "failed": 2, "expired": 1})


@pytest.mark.parametrize("phase", sorted(WITHIN[C.RETRY]))
def test_a_retry_gives_failed_devices_another_attempt_and_leaves_the_phase(phase: Phase) -> None:
    before = in_phase(phase)
    decision = machine.operate(before, FAILED, C.RETRY, actor="bea", reason="new antenna", now=50.0)
    assert decision.effects == (Again(),)
    assert (decision.rollout.phase, decision.rollout.version) == (phase, before.version)
    assert decision.reason.text == "another attempt for 3 devices: new antenna"
    assert (decision.rollout.reason, decision.rollout.actor, decision.rollout.moved_at) == (decision.reason, "bea", 50)


def test_a_retry_without_failures_changes_nothing() -> None:
    before = in_phase(P.RUNNING)
    decision = machine.operate(before, make_tally({"lost": 1}), C.RETRY, actor="bea", reason="", now=50.0)
    assert (decision.rollout, decision.effects, decision.reason.code) == (before, (), "unchanged")


UNRESOLVED = make_tally({"confirmed": 10, "installed": 10})


def test_advance_passes_a_stage_without_waiting_for_the_rest_of_its_evidence() -> None:
    decision = machine.operate(in_phase(P.RUNNING), UNRESOLVED, C.ADVANCE, actor="bea", reason="seen it", now=50.0)
    assert (decision.rollout.stage, decision.rollout.current.hurried) == (0, True)
    after = judgement.step(decision.rollout, UNRESOLVED, 51.0)
    assert (after.rollout.stage, after.rollout.stages[0].passed_at, after.reason.text) == (1, 51.0, "seen it")
    again = machine.operate(decision.rollout, UNRESOLVED, C.ADVANCE, actor="bea", reason="seen it", now=52.0)
    assert again.reason.code == "unchanged"


def test_evidence_halts_a_stage_that_was_advanced() -> None:
    bad = make_tally({"confirmed": 10, "failed": 10})
    hurried = machine.operate(in_phase(P.RUNNING), bad, C.ADVANCE, actor="bea", reason="seen it", now=50.0).rollout
    assert judgement.step(hurried, bad, 51.0).rollout.phase is P.HALTED


def test_a_halt_takes_back_what_was_said_in_the_place_of_evidence() -> None:
    rollout = machine.operate(
        in_phase(P.RUNNING), UNRESOLVED, C.ADVANCE, actor="bea", reason="seen it", now=50.0
    ).rollout
    assert rollout.current.hurried
    for command in (C.HALT, C.RESUME):
        rollout = operate(rollout, command).rollout
    assert (rollout.current.hurried, rollout.current.waived) == (False, False)


@pytest.mark.parametrize(
    "tally", [make_tally({"pending": 20}), make_tally({"confirmed": 19}), make_tally({"retrying": 9, "postponed": 11})]
)
def test_advance_waits_until_every_device_was_offered_and_skip_does_not(tally: Mapping[TallyKey, int]) -> None:
    with pytest.raises(ConflictError) as refused:
        machine.operate(in_phase(P.RUNNING), tally, C.ADVANCE, actor="bea", reason="seen it", now=50.0)
    assert refused.value.code == "stage_not_offered"
    skipped = machine.operate(in_phase(P.RUNNING), tally, C.SKIP, actor="bea", reason="no such site", now=50.0).rollout
    assert skipped.current.target == sum(tally.values())
    assert judgement.step(skipped, tally, 51.0).rollout.stage == 1


def test_the_last_stage_can_be_advanced_and_not_skipped() -> None:
    last = make_rollout(make_plan((20,)), cohort_size=20)
    with pytest.raises(ConflictError) as refused:
        machine.operate(last, UNRESOLVED, C.SKIP, actor="bea", reason="why not", now=50.0)
    assert refused.value.code == "last_stage"
    hurried = machine.operate(last, UNRESOLVED, C.ADVANCE, actor="bea", reason="seen it", now=50.0).rollout
    assert judgement.step(hurried, UNRESOLVED, 51.0).rollout.phase is P.RUNNING
    over = make_tally({"confirmed": 19, "unreached": 1})
    assert judgement.step(hurried, over, 52.0).rollout.phase is P.DONE


@pytest.mark.parametrize("command", [C.ADVANCE, C.SKIP])
def test_a_word_in_the_place_of_evidence_needs_a_reason(command: Command) -> None:
    with pytest.raises(RequestError) as refused:
        operate(in_phase(P.RUNNING), command, " ")
    assert refused.value.code == "reason_needed"


@pytest.mark.parametrize("state", ["retrying", "postponed"])
def test_a_stage_waits_for_those_who_try_again(state: str) -> None:
    waits = judgement.step(in_phase(P.RUNNING), make_tally({"confirmed": 19, state: 1}), 50.0)
    assert (waits.reason.code, waits.effects) == ("retrying", ())


def test_a_failure_that_was_retried_still_halts_and_still_counts_for_passing() -> None:
    rollout = in_phase(P.RUNNING)
    tally = make_tally({"confirmed": 20, RETRIED: 1})
    assert evidence.stage_bound(rollout, tally).failures == 1
    assert evidence.halt_evidence(rollout, tally)[0].failures == 1
    assert evidence.stage_counts(tally, 0).opened == evidence.opened(tally) == 20
