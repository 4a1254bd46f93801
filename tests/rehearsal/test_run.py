"""Single runs, many runs, and what they say together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.judging.health import HealthRule, Missing, Side
from orchestrator.core.judging.outside import ServiceGate
from orchestrator.core.model import Delivery, EvidenceRule, Phase, SizeKind, StagePlan, Urgency
from orchestrator.core.pace.ramp import Ramp
from orchestrator.core.pace.requirement import Consent, ConsentRule, Requirements
from orchestrator.core.pace.window import Window, Windows
from orchestrator.rehearsal.fleet import Fleet
from orchestrator.rehearsal.run import Outcome, Run, Scenario, registry, rehearse
from orchestrator.rehearsal.summary import percentile, share, summarise
from orchestrator.rehearsal.workers import rehearse_all
from tests.support.builders import REST, make_plan

PLAN = make_plan((10, 50, REST), soak_s=600.0)


def ended(phase: Phase, offered: int = 10, finish_s: float = 60.0, **changes: object) -> Outcome:
    known = Outcome(phase, "passed", 0, offered, offered, 1, finish_s, wrong=False)
    return known._replace(**changes)  # type: ignore[arg-type]


def test_a_good_build_completes_and_reaches_everybody() -> None:
    outcome = rehearse(Scenario(PLAN, Fleet(300)), 0)
    assert (outcome.phase, outcome.code, outcome.stage) == (Phase.DONE, "passed", 2)
    assert (outcome.offered, outcome.reached, outcome.broken) == (300, 300, 0)
    assert outcome.finish_s > 3 * 600.0
    assert not outcome.wrong


def test_what_others_must_say_before_a_stage_passes_is_said_at_once() -> None:
    asks = ServiceGate("https://metrics.example.net/ota", "alerts == 0")
    cool = HealthRule("temperature", Side.BELOW, 80.0, Missing.FAIL)
    stages = tuple(replace(stage, approve=True) for stage in PLAN.stages)
    gated = replace(PLAN, stages=stages, gate=asks, health=(cool,), soonest_s=9e9)
    assert rehearse(Scenario(gated, Fleet(300)), 0) == rehearse(Scenario(PLAN, Fleet(300)), 0)


def test_late_devices_come_last_and_too_few_others_ask_a_person() -> None:
    plan = replace(PLAN, evidence=EvidenceRule(registered_s=3600.0))
    some, most = (Scenario(plan, Fleet(300, late=share)) for share in (0.5, 0.95))
    run = Run(some, 0)
    run.finish()
    assert run.outcome().phase is Phase.DONE
    assert [stage.drained for stage in run.ledger.current.stages] == [False, False, False]
    found = rehearse(most, 0)
    assert (found.phase, found.code, found.offered) == (Phase.INCONCLUSIVE, "inconclusive", 14)
    assert rehearse(Scenario(PLAN, Fleet(300, late=0.95)), 0) == rehearse(Scenario(PLAN, Fleet(300)), 0)


def test_green_strata_are_asked_for() -> None:
    plan = replace(PLAN, evidence=EvidenceRule(strata=2), stratify="model")
    assert rehearse(Scenario(plan, Fleet(300, strata=2)), 0).phase is Phase.DONE
    many = rehearse(Scenario(plan, Fleet(300, strata=9)), 0)
    assert (many.phase, many.code, many.stage) == (Phase.INCONCLUSIVE, "strata", 0)


def test_a_build_that_fails_everywhere_is_halted_within_the_first_stage() -> None:
    outcome = rehearse(Scenario(PLAN, Fleet(300, bad_share=1.0)), 0)
    assert (outcome.phase, outcome.code, outcome.stage) == (Phase.HALTED, "evidence", 0)
    assert outcome.offered <= 10


def test_one_device_that_never_comes_back_halts_a_small_stage() -> None:
    outcome = rehearse(Scenario(PLAN, Fleet(300, bad_share=1.0, lost_share=1.0)), 0)
    assert (outcome.phase, outcome.code) == (Phase.HALTED, "lost_after_reboot")


def test_praise_alone_lets_a_bad_build_through_and_that_is_a_wrong_advance() -> None:
    outcome = rehearse(Scenario(PLAN, Fleet(300, bad_share=0.5, liars=1.0)), 0)
    assert (outcome.phase, outcome.wrong) == (Phase.DONE, True)
    assert outcome.broken > 100


def test_who_is_away_is_offered_the_release_and_never_reached() -> None:
    outcome = rehearse(Scenario(PLAN, Fleet(100, offline=0.2)), 0)
    assert outcome.phase is Phase.DONE
    assert outcome.reached < outcome.offered == 100


def test_too_many_away_ask_a_person() -> None:
    outcome = rehearse(Scenario(PLAN, Fleet(100, offline=1.0)), 0)
    assert (outcome.phase, outcome.code, outcome.reached) == (Phase.INCONCLUSIVE, "unreached", 0)


def test_polling_takes_longer_than_pushing() -> None:
    pushed = rehearse(Scenario(PLAN, Fleet(100)), 0)
    polled = rehearse(Scenario(replace(PLAN, delivery=Delivery.POLL), Fleet(100)), 0)
    assert polled.phase is Phase.DONE
    assert polled.finish_s > pushed.finish_s + 1800.0


def test_the_ceiling_holds_a_fast_plan_and_a_warrant_lifts_it() -> None:
    fast = make_plan((REST,), in_flight=2000)
    held = rehearse(Scenario(fast, Fleet(1200)), 0)
    lifted = rehearse(Scenario(replace(fast, urgency=Urgency.EMERGENCY), Fleet(1200)), 0)
    assert held.finish_s > 2 * 3600.0 > 3600.0 > lifted.finish_s


def test_hours_ramp_and_jitter_slow_a_rehearsal_down_and_requirements_are_met() -> None:
    base = make_plan((REST,), in_flight=1000)
    fleet = Fleet(100)
    free = rehearse(Scenario(base, fleet), 0)
    night = Windows((Window(22 * 3600, 23 * 3600),))
    rules: list[tuple[dict[str, Any], float]] = [
        ({"windows": night}, 22 * 3600.0),
        ({"ramp": Ramp(1, 1.0, 1, 600.0)}, 99 * 60.0),
        ({"jitter_s": 7200.0}, 5400.0),
        ({"require": Requirements(charging=True), "consent": ConsentRule(Consent.ASK)}, 0.0),
    ]
    for rule, least_s in rules:
        outcome = rehearse(Scenario(replace(base, **rule), fleet), 0)
        assert (outcome.phase, outcome.reached) == (Phase.DONE, 100)
        assert outcome.finish_s >= max(least_s, free.finish_s if not least_s else 0.0)


@pytest.mark.parametrize("stratify", ["", "site", "attr.region"])
def test_strata_are_what_the_plan_stratifies_by(stratify: str) -> None:
    plan = replace(PLAN, stratify=stratify)
    outcome = rehearse(Scenario(plan, Fleet(200, strata=4)), 0)
    assert outcome.phase is Phase.DONE
    assert {device.model for device in registry(Fleet(8, strata=4), stratify)} == set(Fleet(8, strata=4).models)


def test_a_stage_of_a_group_takes_no_others_and_no_more_than_there_are() -> None:
    own = replace(PLAN, stages=(StagePlan(SizeKind.COUNT, 10, group="canaries"), StagePlan(SizeKind.REST, 0)))
    fleet = Fleet(100, strata=2, grouped=0.06, bad_share=1.0, lost_share=1.0)
    run = Run(Scenario(own, fleet), 0)
    run.finish()
    grouped = {item.id for item in registry(fleet, "", ("canaries",)) if item.groups}
    assert len(grouped) == 6
    opened = {run.ledger.update(number).device_id for number in run.ledger.offered}
    assert opened and opened <= grouped
    assert run.ledger.current.stages[0].target == 6
    assert rehearse(Scenario(own, replace(fleet, bad_share=0.0)), 0).offered == 100


def test_sizes_by_share_and_a_wrong_advance_by_numbers() -> None:
    wide = replace(PLAN, stages=(StagePlan(SizeKind.PPM, 1_000_000),), in_flight=1000)
    scenario = Scenario(wide, Fleet(1000, bad_share=0.02), seed=2)
    assert scenario.is_bad
    outcomes = [rehearse(scenario, number) for number in range(3)]
    assert all(item.wrong == (item.phase is Phase.DONE or item.offered > 100) for item in outcomes)
    assert any(item.wrong for item in outcomes)


def test_the_numbers_do_not_depend_on_the_number_of_processes() -> None:
    scenario = Scenario(PLAN, Fleet(60, bad_share=0.05), seed=5)
    told: list[int] = []
    alone = rehearse_all(scenario, 12, 1, told.append)
    assert told == list(range(1, 13))
    together = rehearse_all(scenario, 12, 2, told.append)
    assert together == alone
    assert told[-1] == 12
    assert rehearse_all(replace(scenario, seed=6), 12, 1) != alone


def test_a_summary_says_how_often_how_many_and_how_long() -> None:
    outcomes = [
        ended(Phase.DONE, 100, 10.0),
        ended(Phase.DONE, 100, 30.0, wrong=True),
        ended(Phase.HALTED, 20, 5.0, code="evidence"),
        ended(Phase.INCONCLUSIVE, 40, code="unreached"),
    ]
    found = summarise(Scenario(PLAN, Fleet(100)), outcomes)
    assert (found["completed_probability"], found["halt_probability"], found["inconclusive_probability"]) == (
        0.5, 0.25, 0.25,
    )  # fmt: skip
    assert (found["devices_reached_mean"], found["devices_reached_p95"], found["devices_reached_max"]) == (65, 100, 100)
    assert (found["finish_s_p50"], found["finish_s_p95"], found["halt_s_p50"]) == (10.0, 30.0, 5.0)
    assert found["wrong_advances"] == 1
    assert sum(end["runs"] for end in found["ends"]) == 4


def test_without_a_completed_run_there_is_no_time_to_finish() -> None:
    assert summarise(Scenario(PLAN, Fleet(1)), [ended(Phase.HALTED)])["finish_s_p50"] is None
    assert percentile([], 0.5) is None


def test_none_of_many_runs_is_not_never() -> None:
    none, all_ = share(0, 1000), share(1000, 1000)
    assert (none.low, all_.high) == (0.0, 1.0)
    assert none.high == pytest.approx(0.003682, abs=1e-6)
    assert all_.low == pytest.approx(1 - none.high)
