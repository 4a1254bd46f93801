"""What evidence and time ask for: one situation, one decision, always with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import rollout as machine
from orchestrator.core.judging import judgement
from orchestrator.core.model import RELAPSED, RETRIED, HaltRule, Phase, Reason, Rollout, Stage, Tally, TallyKey
from orchestrator.core.pace import ramp
from orchestrator.core.rollout import Decision, Offer, Open, Prepare, Recall, VoidQueued
from tests.support.builders import REST, make_draft, make_plan, make_rollout, make_tally

P = Phase
LIMITS = (0.20, 0.08, 0.05)


def step(rollout: Rollout, counts: Mapping[str, int] | Tally, now: float = 100.0, *, hearing: bool = True) -> Decision:
    """Step with the tallies given, or with counts by state of the current stage."""
    plain = {state: count for state, count in counts.items() if isinstance(state, str)}
    tally = make_tally(plain, stage=rollout.stage, epoch=rollout.epoch) if plain else counts
    return judgement.step(rollout, tally, now, hearing=hearing)  # type: ignore[arg-type]


def answer(decision: Decision) -> tuple[str, tuple[machine.Effect, ...]]:
    return decision.reason.code, decision.effects


def second_stage(**changes: object) -> tuple[Rollout, Counter[TallyKey]]:
    """Return a rollout of 20, 60, rest in its second stage, and the tally of its faultless first."""
    rollout = make_rollout(make_plan((20, 60, REST), LIMITS), 200, stage=1)
    return replace(rollout, **changes), make_tally({"confirmed": 20})  # type: ignore[arg-type]


def test_a_rollout_that_prepares_goes_on_preparing() -> None:
    assert answer(step(make_draft(phase=P.PREPARING), {})) == ("preparing", (Prepare(),))


@pytest.mark.parametrize("phase", [P.DRAFT, P.HALTED, P.DONE, P.ABORTED, P.PAUSED, P.INCONCLUSIVE])
def test_phases_that_wait_for_a_person_offer_nothing(phase: Phase) -> None:
    before = make_rollout(phase=phase)
    decision = step(before, {"pending": 20})
    assert decision.rollout is before
    assert (decision.effects, decision.reason) == ((), before.reason)


def test_a_rollout_paused_before_its_cohort_was_known_waits() -> None:
    before = make_draft(phase=P.PAUSED)
    assert step(before, {}).rollout is before


def test_a_stage_is_filled_before_anything_is_offered() -> None:
    assert answer(step(make_rollout(), {})) == ("opening", (Open(20),))
    assert answer(step(make_rollout(), {"pending": 13})) == ("opening", (Open(7),))


def test_a_full_stage_is_opened_and_offered_up_to_the_slots() -> None:
    decision = step(make_rollout(), {"pending": 20})
    assert answer(decision) == ("offering", (Offer(10),))
    assert decision.rollout.current.opened_at == 100.0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"pending": 12, "offered": 8}, ("offering", (Offer(2),))),
        ({"pending": 1, "offered": 8, "confirmed": 11}, ("offering", (Offer(1),))),
        ({"pending": 10, "offered": 10}, ("slots_taken", ())),
        ({"pending": 8, "offered": 2, "recalling": 4, "too_late": 4, "running": 2}, ("slots_taken", ())),
    ],
)
def test_slots(counts: dict[str, int], expected: tuple[str, tuple[machine.Effect, ...]]) -> None:
    assert answer(step(make_rollout(), counts)) == expected


def test_slots_of_earlier_stages_stay_taken_and_their_pending_come_first() -> None:
    rollout, _ = second_stage()
    tally = make_tally({"confirmed": 17, "offered": 1, "pending": 2}) + make_tally({"pending": 60}, stage=1)
    assert answer(step(rollout, tally)) == ("offering", (Offer(9),))


def test_a_stage_waits_for_the_resolved_share_and_forgets_that_it_had_it() -> None:
    rollout = make_rollout(stages=(Stage(20, 20, 1.0, 50.0), Stage(60, 60), Stage(120, 120)))
    assert step(rollout, {"confirmed": 19, "running": 1}).reason.code != "unresolved"
    decision = step(rollout, {"confirmed": 18, "running": 2})
    assert answer(decision) == ("unresolved", ())
    assert decision.rollout.current.resolved_at is None
    assert step(decision.rollout, {"confirmed": 18, "running": 2}).rollout is decision.rollout


def test_soak_counts_from_the_first_moment_all_was_resolved() -> None:
    rollout = make_rollout(make_plan(limits=LIMITS, soak_s=30.0))
    first = step(rollout, {"confirmed": 20}, 100.0)
    assert (answer(first), first.wake_at) == (("soaking", ()), 130.0)
    second = step(first.rollout, {"confirmed": 20}, 129.9)
    assert (answer(second), second.wake_at) == (("soaking", ()), 130.0)
    assert second.rollout is first.rollout
    assert step(second.rollout, {"confirmed": 20}, 130.0).reason.code == "passed"


def test_a_stage_that_passes_opens_the_next_one() -> None:
    decision = step(make_rollout(make_plan(limits=LIMITS)), {"confirmed": 20})
    assert answer(decision) == ("passed", ())
    assert (decision.rollout.stage, decision.rollout.stages[0].passed_at) == (1, 100.0)
    assert decision.wake_at == 100.0
    assert decision.rollout.version == 1
    assert decision.reason.text == (
        "0 devices failed or not resolved of 20 prove a failure rate of at most 13.9%; this stage allows 20.0%"
    )


def test_the_last_stage_waits_for_all_stages_and_then_ends() -> None:
    rollout = make_rollout(make_plan(limits=LIMITS), stage=2)
    earlier = make_tally({"confirmed": 19, "running": 1}) + make_tally({"confirmed": 60}, stage=1)
    last = make_tally({"confirmed": 120}, stage=2)
    waiting = step(rollout, earlier + last)
    assert answer(waiting) == ("finishing", ())
    done = step(rollout, make_tally({"confirmed": 20}) + make_tally({"confirmed": 60}, stage=1) + last)
    assert (done.rollout.phase, answer(done)) == (P.DONE, ("passed", (VoidQueued(),)))


def test_a_stage_that_proves_too_little_is_extended_by_devices() -> None:
    """One failure in ten: 30 % takes fourteen devices."""
    rollout = make_rollout(make_plan((10, REST), (0.30, 0.05)), 200)
    decision = step(rollout, {"confirmed": 9, "failed": 1})
    assert answer(decision) == ("extended", (Open(4),))
    assert (decision.rollout.current.base, decision.rollout.current.target) == (10, 14)
    assert decision.rollout.current.resolved_at is None
    after = step(decision.rollout, {"confirmed": 13, "failed": 1})
    assert (after.reason.code, after.rollout.stage) == ("passed", 1)
    assert after.rollout.current.target == 186


def test_a_stage_is_never_extended_while_devices_are_still_updating() -> None:
    rollout = make_rollout(make_plan((20, REST), (0.20, 0.05)), 200)
    assert answer(step(rollout, {"confirmed": 19, "running": 1})) == ("unresolved", ())


def test_a_stage_is_extended_to_at_most_three_times_its_size() -> None:
    """Ten devices without a failure prove 26 %, 15 % takes nineteen, 10 % takes 29, 9 % takes 32."""
    for limit, code in ((0.15, "extended"), (0.10, "extended"), (0.09, "inconclusive")):
        assert step(make_rollout(make_plan((10, REST), (limit,)), 200), {"confirmed": 10}).reason.code == code


def test_without_enough_devices_left_a_person_is_asked() -> None:
    decision = step(make_rollout(make_plan((10, REST), (0.30,)), 13), {"confirmed": 9, "failed": 1})
    assert (decision.rollout.phase, answer(decision)) == (P.INCONCLUSIVE, ("inconclusive", (VoidQueued(),)))
    assert decision.reason.text.endswith("this stage allows 30.0%; 4 more devices would be needed")


def test_a_limit_of_nothing_asks_a_person() -> None:
    decision = step(make_rollout(make_plan((10, REST), (0.0,)), 200), {"confirmed": 10})
    assert decision.reason.text.endswith("no number of more devices would be needed")


def test_devices_that_were_never_reached_have_their_own_cap() -> None:
    rollout = make_rollout(make_plan((20, REST), (0.30, 0.05)), 200)
    assert step(rollout, {"confirmed": 10, "unreached": 10}).reason.code == "passed"
    decision = step(rollout, {"confirmed": 9, "unreached": 11})
    assert (decision.rollout.phase, answer(decision)) == (P.INCONCLUSIVE, ("unreached", (VoidQueued(),)))
    assert decision.reason.text == "11 of 20 devices were never reached; the plan allows 50%"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_a_small_fleet_without_failures_finishes_with_the_default_limit(size: int) -> None:
    rollout = make_rollout(make_plan((REST,)), size)
    assert step(rollout, {"confirmed": size}).rollout.phase is P.DONE


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_small_fleet_with_a_failure_asks_a_person(size: int) -> None:
    rollout = make_rollout(make_plan((REST,)), size)
    assert step(rollout, {"confirmed": size - 1, "failed": 1}).reason.code == "inconclusive"


def test_a_stage_without_devices_passes() -> None:
    rollout = make_rollout(make_plan((5, 60, REST)), 5, stage=1)
    assert rollout.current.target == 0
    decision = step(rollout, make_tally({"confirmed": 5}))
    assert (decision.reason.code, decision.rollout.stage) == ("passed", 2)


def test_evidence_halts() -> None:
    decision = step(make_rollout(), {"rolled_back": 3, "confirmed": 5, "offered": 10, "pending": 2})
    assert (decision.rollout.phase, decision.rollout.actor) == (P.HALTED, "orchestrator")
    assert answer(decision) == ("evidence", (VoidQueued(), Recall()))
    assert decision.rollout.version == 2
    assert decision.reason.text.startswith(
        "3 failed of 18 devices: the evidence against a failure rate of at most 1.00% is"
    )


def test_evidence_names_the_model_that_halts() -> None:
    rollout = make_rollout(strata=2)
    tally = make_tally({"confirmed": 300}) + make_tally({"failed": 4, "confirmed": 2}, stratum="m2")
    assert "4 failed of 6 devices on m2:" in step(rollout, tally).reason.text


@pytest.mark.parametrize("phase", sorted(machine.JUDGED))
def test_evidence_halts_in_every_phase_that_is_judged_also_while_deaf(phase: Phase) -> None:
    decision = step(make_rollout(phase=phase), {"failed": 5, "confirmed": 5}, hearing=False)
    assert decision.rollout.phase is P.HALTED


def test_while_deaf_the_rollout_holds() -> None:
    rollout = make_rollout(make_plan(limits=LIMITS))
    for counts in ({"pending": 20}, {"confirmed": 20}):
        decision = step(rollout, counts, hearing=False)
        assert (decision.rollout, answer(decision)) == (rollout, ("deaf", ()))


@pytest.mark.parametrize(("size", "lost", "halts"), [(20, 0, False), (20, 1, True), (60, 1, False), (60, 2, True)])
def test_devices_lost_after_the_reboot_halt_at_once(size: int, lost: int, halts: bool) -> None:
    rollout = make_rollout(make_plan((size, REST), (0.5,)), 200)
    decision = step(rollout, {"lost": lost, "confirmed": size - 20 - lost, "pending": 20})
    assert (decision.reason.code == "lost_after_reboot") is halts
    assert (decision.rollout.phase is P.HALTED) is halts


def test_a_relapse_counts_for_the_hard_rule_of_the_current_stage() -> None:
    """One lost and one relapse are two failures in 81, far from a halt by evidence."""
    rollout, first = second_stage()
    tally = first + make_tally({"confirmed": 59, "lost": 1, RELAPSED: 1}, stage=1)
    assert answer(step(rollout, tally - make_tally({RELAPSED: 1}, stage=1)))[0] == "passed"
    assert step(rollout, tally).reason == Reason(
        "lost_after_reboot", "2 of 60 devices of this stage were lost after the reboot; 2 halt it"
    )


def test_a_resume_starts_the_hard_rule_anew() -> None:
    """What was lost before the halt stays on record, and does not halt the next epoch by itself."""
    rollout = make_rollout(make_plan((20, REST)), 200, epoch=1)
    before = make_tally({"lost": 1, "confirmed": 10, "pending": 9})
    assert step(rollout, before).reason.code == "offering"
    again = before - make_tally({"pending": 1}) + make_tally({"lost": 1}, epoch=1)
    assert step(rollout, again).reason.code == "lost_after_reboot"


def test_an_earlier_stage_that_is_still_updating_is_waited_for_before_anybody_is_asked() -> None:
    rollout = make_rollout(make_plan((100, 20, REST), (0.12, 0.05, 0.05)), 400, stage=1)
    tally = make_tally({"confirmed": 95, "running": 5}) + make_tally({"confirmed": 20}, stage=1)
    assert answer(step(rollout, tally)) == ("unresolved", ())


def test_an_empty_stage_does_not_soak() -> None:
    rollout = make_rollout(make_plan((5, 60, REST), soak_s=3600.0), 5, stage=1)
    decision = step(rollout, make_tally({"confirmed": 5}))
    assert (decision.rollout.stage, decision.reason.code) == (2, "passed")


def test_the_hard_rule_can_be_switched_off_and_ends_beyond_a_hundred() -> None:
    off = make_plan((20, REST), (0.5,), halt=HaltRule(lost_after_reboot=False))
    assert step(make_rollout(off), {"lost": 1, "pending": 19}).reason.code == "offering"
    large = make_rollout(make_plan((400, REST)), 4000)
    assert step(large, {"lost": 5, "confirmed": 295, "pending": 100}).reason.code == "offering"


def test_plain_threshold_on_failures() -> None:
    rollout = make_rollout(make_plan((400, REST), halt=HaltRule(max_failures=4)), 4000)
    assert step(rollout, {"failed": 3, "confirmed": 297, "pending": 100}).reason.code == "offering"
    decision = step(rollout, {"failed": 4, "confirmed": 296, "pending": 100})
    assert decision.reason == Reason("max_failures", "4 failures; the plan allows fewer than 4")
    assert decision.rollout.phase is P.HALTED


@pytest.mark.parametrize(
    ("failed", "confirmed", "halts"), [(1, 18, False), (1, 19, True), (1, 20, False), (2, 38, True), (2, 39, False)]
)
def test_plain_threshold_on_the_rate_after_the_least_sample(failed: int, confirmed: int, halts: bool) -> None:
    rule = HaltRule(max_failure_rate=0.05, min_sample=20, lost_after_reboot=False)
    rollout = make_rollout(make_plan((400, REST), halt=rule), 4000)
    decision = step(rollout, {"failed": failed, "confirmed": confirmed, "running": 9, "pending": 400})
    assert (decision.reason.code == "max_failure_rate") is halts
    if halts:
        assert decision.reason.text == f"{failed} of {failed + confirmed} failed; the plan allows less than 5.0%"


@pytest.mark.parametrize("event", [RELAPSED, RETRIED])
def test_the_rate_counts_a_device_once_that_failed_before_or_after_it_was_healthy(event: str) -> None:
    rule = HaltRule(max_failure_rate=0.10, tolerated=0.30, lost_after_reboot=False)
    rollout = make_rollout(make_plan((400, REST), halt=rule), 4000)
    tally = make_tally({"confirmed": 100, event: 10})
    assert step(rollout, tally).reason.text == "10 of 100 failed; the plan allows less than 10.0%"
    assert step(rollout, make_tally({"confirmed": 101, event: 10})).rollout.phase is P.RUNNING


def test_who_failed_and_tries_again_is_one_of_those_that_failed() -> None:
    rule = HaltRule(max_failure_rate=0.10, alpha=1e-300, lost_after_reboot=False)
    rollout = make_rollout(make_plan((400, REST), halt=rule), 4000)
    decision = step(rollout, make_tally({"confirmed": 5, "pending": 25, RETRIED: 25}))
    assert decision.reason.text == "25 of 25 failed; the plan allows less than 10.0%"


def test_every_automatic_move_is_made_by_the_orchestrator_with_effects_and_version() -> None:
    rollout = make_rollout(make_plan((10, REST), (0.30,)), 13)
    for counts in ({"confirmed": 9, "failed": 1}, {"failed": 5, "confirmed": 5}):
        decision = step(rollout, counts)
        assert decision.rollout.actor == "orchestrator"
        assert (decision.rollout.version, decision.rollout.moved_at) == (2, 100.0)
        assert VoidQueued() in decision.effects


def test_a_stage_takes_what_its_extended_predecessors_left() -> None:
    plan = make_plan((10, 60, REST), (0.30, 0.9, 0.9))
    extended = make_rollout(plan, 40, stages=(Stage(10, 14), Stage(30, 30), Stage(0, 0)))
    decision = step(extended, {"confirmed": 14})
    assert decision.rollout.stages == (
        replace(extended.stages[0], target=14, opened_at=100.0, resolved_at=100.0, passed_at=100.0),
        Stage(base=30, target=26),
        Stage(0, 0),
    )


def drained(found: int, **changes: object) -> Rollout:
    """Return a rollout whose first stage found so many of its 20 devices, for the others registered too late."""
    first = Stage(base=20, target=found, drained=True)
    rollout = make_rollout(make_plan((20, REST), LIMITS[:1]), 200)
    return replace(rollout, stages=(first, rollout.stages[1]), **changes)  # type: ignore[arg-type]


def test_a_stage_with_fewer_devices_than_planned_passes_if_they_show_enough() -> None:
    after = step(drained(14), {"confirmed": 14})
    assert (after.rollout.stage, after.rollout.current.target) == (1, 186)


@pytest.mark.parametrize("found", [0, 1, 13])
def test_where_they_do_not_it_asks_a_person_at_once(found: int) -> None:
    after = step(drained(found), {"confirmed": found})
    assert (after.rollout.phase, after.reason.code, after.effects) == (P.INCONCLUSIVE, "inconclusive", (VoidQueued(),))
    assert "registered too late for any but the last stage" in after.reason.text
    resumed = machine.operate(after.rollout, {}, machine.Command.RESUME, actor="ann", reason="seen", now=1.0).rollout
    assert step(resumed, {"confirmed": found}).rollout.stage == 1


def test_its_default_limit_is_that_of_its_planned_size() -> None:
    rollout = replace(drained(14), plan=make_plan((20, REST)))
    assert step(rollout, {"confirmed": 14}).rollout.stage == 1
    many = replace(rollout, stages=(Stage(base=100, target=14, drained=True), rollout.stages[1]))
    assert step(many, {"confirmed": 14}).rollout.phase is P.INCONCLUSIVE


RAMP = ramp.Ramp(base=6, factor=2.0, cap=60, every_s=100.0)


def test_a_ramp_holds_what_would_start_too_soon_and_says_until_when() -> None:
    rollout = make_rollout(make_plan((20, REST), ramp=RAMP), 100)
    first = step(rollout, {"pending": 20}, 1000.0)
    assert answer(first) == ("offering", (Offer(1),))
    after = judgement.started(first.rollout, 1, 1000.0)
    held = step(after, {"pending": 19, "offered": 1}, 1000.0)
    assert (held.effects, held.wake_at) == ((), 1010.0)
    assert held.reason == Reason("ramp", "9 devices waiting for the ramp; 6 may start per minute")
    assert step(after, {"pending": 19, "offered": 1}, 1010.0).effects == (Offer(1),)
    assert step(after, {"pending": 19, "offered": 1}, 990.0).effects == ()  # a clock that was set back gives none away


def test_each_stage_has_a_ramp_of_its_own_and_slots_still_count() -> None:
    plan = make_plan((20, 60, REST), LIMITS, ramp=RAMP)
    rollout = make_rollout(plan, 200, stage=1)
    climbed = replace(rollout.stages[0], climb=ramp.Climb(0.0, 9, 5000.0))
    rollout = replace(rollout, stages=(climbed, *rollout.stages[1:]))
    tally = make_tally({"confirmed": 20}) + make_tally({"pending": 60}, stage=1)
    decision = step(rollout, tally, 1000.0)
    assert answer(decision) == ("offering", (Offer(1),))
    full = make_tally({"confirmed": 20}) + make_tally({"pending": 50, "offered": 10}, stage=1)
    assert step(rollout, full, 1000.0).reason.code == "slots_taken"


def test_nothing_started_and_no_ramp_leave_a_stage_as_it_is() -> None:
    for plan, count in ((make_plan(), 5), (make_plan(ramp=RAMP), 0)):
        rollout = make_rollout(plan)
        assert judgement.started(rollout, count, 10.0) is rollout


@given(
    asks=st.lists(st.tuples(st.floats(-50.0, 300.0), st.integers(0, 40)), max_size=60),
    base=st.integers(1, 50),
    factor=st.sampled_from([1.0, 1.5, 3.0]),
)
def test_no_pattern_of_asking_starts_more_than_the_ramp_allows(
    asks: list[tuple[float, int]], base: int, factor: float
) -> None:
    """Late joiners, clocks that are set back, and whoever asks how often: starts up to now fit below the rates."""
    limit = ramp.Ramp(base, factor, base * 10, 60.0)
    rollout = replace(make_rollout(make_plan((REST,), ramp=limit, in_flight=10**6), 10**6))
    rollout = replace(rollout, stages=(replace(rollout.current, opened_at=0.0),))
    now, latest, started = 0.0, 0.0, 0
    for moves_s, joined in asks:
        now += moves_s
        latest = max(latest, now)
        tally = make_tally({"pending": 10**6 + joined, "confirmed": 10**6})
        rollout = replace(rollout, stages=(replace(rollout.current, target=2 * 10**6 + joined),))
        offers = [effect.count for effect in step(rollout, tally, now).effects if isinstance(effect, Offer)]
        rollout = judgement.started(rollout, sum(offers), now)
        started += sum(offers)
    highest = min(base * factor ** int(latest // 60.0), limit.cap)
    assert started <= (latest + max(ramp.BURST_S, 60.0 / base)) * highest / 60.0 + 1
