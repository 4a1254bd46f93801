"""Strata that must be healthy by themselves before a stage passes: what makes one green, and how many are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging import diversity, gate, judgement
from orchestrator.core.judging.diversity import LEAST_HEALTHY, Stratum
from orchestrator.core.model import MET, RELAPSED, RETRIED, EvidenceRule, Phase, Rollout, TallyKey
from orchestrator.core.rollout import Command, Decision, Recall, VoidQueued, operate
from tests.support.builders import REST, make_plan, make_rollout, make_tally


def asks(strata: int = 2, *, limit: float = 0.3, known: int = 2, soak_s: float = 0.0) -> Rollout:
    """Return a rollout in its first stage whose plan asks for so many green strata of those that are known."""
    plan = make_plan((20, REST), (limit, None), soak_s, evidence=EvidenceRule(strata=strata))
    return make_rollout(plan, 500, strata=known)


def tallies(*strata: Mapping[str, int], epoch: int = 0) -> Counter[TallyKey]:
    """Return the tallies of the strata `m1`, `m2`, ..."""
    found: Counter[TallyKey] = Counter()
    for number, counts in enumerate(strata, start=1):
        found += make_tally(counts, stratum=f"m{number}", epoch=epoch)
    return found


def judged(rollout: Rollout, tally: Counter[TallyKey]) -> Decision:
    return judgement.step(rollout, tally, 100.0)


# What is green

NOTHING = Stratum("m1", 0, 0, 0, 0)


@given(st.integers(0, 60), st.integers(0, 12), st.integers(0, 5), st.sampled_from([0.05, 0.1, 0.3, 0.5]))
def test_green_is_what_would_pass_as_a_stage_of_its_size_and_is_shown_by_enough(
    healthy: int, failed: int, running: int, limit: float
) -> None:
    tally = tallies({"confirmed": healthy, "failed": failed, "running": running}, {"confirmed": 20})
    found = next((item for item in diversity.strata(asks(limit=limit), tally) if item.name == "m1"), NOTHING)
    bad, exposed = failed + running, healthy + failed + running
    assert (found.healthy, found.failures, found.exposed) == (healthy, bad, exposed)
    within = bad == 0 or gate.upper_bound(bad, exposed) <= max(limit, gate.default_limit(exposed))
    assert found.is_green is (within and healthy >= LEAST_HEALTHY)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"confirmed": 3}, Stratum("m1", 3, 0, 3, 0)),
        ({"confirmed": 2, "unreached": 9, "refused": 1}, Stratum("m1", 2, 0, 2, 0)),
        ({"confirmed": 30, RELAPSED: 2}, Stratum("m1", 28, 2, 30, 4)),
        ({"confirmed": 30, RETRIED: 1}, Stratum("m1", 30, 1, 30, 4)),
        ({"pending": 1, RETRIED: 1, MET: 1}, Stratum("m1", 0, 1, 1, 0)),
    ],
)
def test_who_counts_as_what(counts: dict[str, int], expected: Stratum) -> None:
    assert diversity.strata(asks(), tallies(counts)) == (expected,)


def test_another_epoch_is_no_evidence() -> None:
    rollout = replace(asks(), epoch=1)
    assert [item.healthy for item in diversity.strata(rollout, tallies({"confirmed": 20}))] == [0]


@pytest.mark.parametrize(("strata", "known", "needed"), [(0, 4, 0), (2, 4, 2), (2, 1, 1), (9, 4, 4)])
def test_all_are_needed_where_there_are_fewer(strata: int, known: int, needed: int) -> None:
    assert diversity.needed(asks(strata, known=known)) == needed


# Before a stage passes


GREEN = {"confirmed": 10}


def test_it_passes_with_enough_green_strata() -> None:
    after = judged(asks(), tallies(GREEN, GREEN))
    assert (after.rollout.stage, after.reason.code) == (1, "passed")


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (
            {"confirmed": 2},
            "m2: 2 healthy, at least 3 needed, and 0 of 2 failed or not resolved, at most 0 allowed",
        ),
        (
            {"confirmed": 4, "failed": 1},
            "m2: 4 healthy, at least 3 needed, and 1 of 5 failed or not resolved, at most 0 allowed",
        ),
    ],
)
def test_a_stage_that_only_one_stratum_praises_asks_a_person(second: dict[str, int], what: str) -> None:
    first = {"confirmed": 20 - sum(second.values())}
    rollout = replace(asks(), plan=replace(asks().plan, halt=replace(asks().plan.halt, lost_after_reboot=False)))
    after = judged(rollout, tallies(first, second))
    assert (after.rollout.phase, after.reason.code) == (Phase.INCONCLUSIVE, "strata")
    assert what in after.reason.text
    assert after.effects == (VoidQueued(),)
    assert judged(asks(0), tallies(first, second)).reason.code == "passed"
    resumed = operate(after.rollout, Counter(), Command.RESUME, actor="ann", reason="seen", now=100.0)
    assert judged(resumed.rollout, tallies(first, second)).rollout.stage == 1


def test_a_stratum_of_which_none_was_taken_is_missing() -> None:
    after = judged(asks(), tallies({"confirmed": 20}))
    assert after.rollout.phase is Phase.INCONCLUSIVE
    assert after.reason.text.startswith(
        "of the 2 strata that must be healthy by themselves 1 are; no device of another was taken; "
    )


def test_a_stratum_that_can_never_be_green_is_missing_and_a_person_is_told_what_to_do() -> None:
    plan = make_plan((20, 20, REST), (0.3, 0.3, 0.3), evidence=EvidenceRule(strata=2))
    in_halt = make_tally({"confirmed": 10}, stratum="m2") + make_tally({"confirmed": 20}, stage=1, epoch=1)
    too_few = make_tally({"confirmed": 2}, stratum="m2") + make_tally({"confirmed": 20}, stage=1)
    for epoch, tally in ((0, too_few), (1, in_halt)):
        rollout = make_rollout(plan, 500, stage=1, strata=2, epoch=epoch)
        after = judged(rollout, tally)
        assert (after.rollout.phase, after.reason.code) == (Phase.INCONCLUSIVE, "strata")
        assert "fewer than 3 devices are left to show it stays so: `ota rollout resume` passes" in after.reason.text
        resumed = operate(after.rollout, Counter(), Command.RESUME, actor="ann", reason="seen", now=100.0)
        assert judged(resumed.rollout, tally).rollout.stage == 2
        enough = replace(plan, evidence=EvidenceRule(strata=1))
        assert judged(replace(rollout, plan=enough), tally).rollout.stage == 2


def test_it_waits_for_devices_that_may_still_turn_a_stratum_green() -> None:
    plan = replace(asks().plan, resolved_share=0.5)
    rollout = replace(asks(), plan=plan)
    after = judged(rollout, tallies({"confirmed": 17}, {"confirmed": 2, "running": 1}))
    assert (after.rollout.phase, after.reason.code, after.effects) == (Phase.RUNNING, "unresolved", ())


def test_what_halts_still_halts() -> None:
    after = judged(asks(), tallies({"confirmed": 12}, {"failed": 8}))
    assert (after.rollout.phase, after.effects) == (Phase.HALTED, (VoidQueued(), Recall()))


def test_a_stage_without_devices_needs_no_strata() -> None:
    rollout = make_rollout(make_plan((20, REST), evidence=EvidenceRule(strata=2)), 20, stage=1, strata=2)
    after = judged(rollout, make_tally({"confirmed": 20}))
    assert after.rollout.phase is Phase.DONE


def test_earlier_stages_count() -> None:
    plan = make_plan((20, REST), (0.3, 0.3), evidence=EvidenceRule(strata=2))
    tally = tallies(GREEN, GREEN) + make_tally({"confirmed": 5}, stage=1)
    assert judged(make_rollout(plan, 25, stage=1, strata=2), tally).rollout.phase is Phase.DONE


# What can never be green


def test_numbers_say_before_the_start_which_stage_must_ask() -> None:
    plan = asks(2).plan
    assert diversity.too_few(plan, 2, {"m1": 20, "m2": LEAST_HEALTHY}) == ""
    assert diversity.too_few(plan, 1, {"m1": 20}) == "", "all of them, where there are fewer"
    assert diversity.too_few(asks(0).plan, 2, {"m1": 1}) == ""
    assert diversity.too_few(plan, 3, {"m1": 18, "m2": 2, "m3": 0}) == (
        "2 strata must be healthy by themselves, each with 3 devices or more, and 1 can be: m2 has 2, m3 has 0; "
        "however healthy they are, this stage asks a person unless it is extended"
    )
    assert "and 1 can be: no device of another is taken" in diversity.too_few(plan, 2, {"m1": 20})


@given(
    st.lists(
        st.fixed_dictionaries(
            {word: st.integers(0, 4) for word in ("pending", "offered", "confirmed", "superseded", "failed", RETRIED)}
        ),
        min_size=2,
        max_size=3,
    ),
    st.integers(0, 1),
)
def test_what_is_called_hopeless_asks_a_person_also_if_all_that_can_be_healthy_is(
    counts: list[dict[str, int]], epoch: int
) -> None:
    tally = tallies(*counts) if epoch == 0 else tallies(*counts) + tallies(*({"pending": 1} for _ in counts), epoch=1)
    asking = asks(2, limit=1.0, known=len(counts))
    opened = sum(count for key, count in tally.items() if key.state in {"pending", "offered", "confirmed", "failed"})
    opened += sum(count for key, count in tally.items() if key.state == "superseded")
    rollout = replace(asking.with_current(replace(asking.current, target=opened)), epoch=epoch)
    healthy: Counter[TallyKey] = Counter()
    for key, count in tally.items():
        word = "confirmed" if key.state in ("pending", "offered") else key.state
        now = epoch if word != key.state else key.epoch
        healthy[key._replace(state=word, epoch=now)] += count
    if diversity.hopeless(rollout, tally):
        assert diversity.lacking(rollout, healthy) is not None
    else:
        few = [item.name for item in diversity.strata(rollout, healthy) if item.healthy < LEAST_HEALTHY]
        assert len(counts) - len(few) >= 2 or any(item["failed"] for item in counts)


def test_nothing_is_hopeless_that_a_person_let_pass_or_that_is_still_being_filled() -> None:
    rollout, tally = asks(2), tallies({"confirmed": 20}, {})
    assert diversity.hopeless(rollout, tally) != ""
    assert diversity.hopeless(rollout.with_current(replace(rollout.current, waived=True)), tally) == ""
    assert diversity.hopeless(rollout, tallies({"confirmed": 19})) == ""
