"""Who counts as what: from tallies to k, n, E and the bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import update
from orchestrator.core.judging import evidence, gate
from orchestrator.core.judging.evidence import StageCounts
from orchestrator.core.model import MET, RELAPSED, Deadlines, HaltRule, Rollout, TallyKey, Update, UpdateState
from orchestrator.core.update import Context, Fact, FactKind
from tests.support.builders import REST, make_plan, make_rollout, make_tally, make_update

F = FactKind
ONE_OF_EACH = make_tally({**dict.fromkeys(map(str, UpdateState), 1), RELAPSED: 1})
MIXED = make_tally({"confirmed": 90, "installed": 3, "failed": 2, "lost": 1, "pending": 4, "unreached": 5})


def test_counts_of_a_stage() -> None:
    assert evidence.stage_counts(MIXED + make_tally({"failed": 9}, stage=1), 0) == StageCounts(
        opened=105, in_flight=3, reached=96, resolved=93, confirmed=90, failures=3, unreached=5
    )


def test_counts_of_a_stage_sum_strata_and_epochs() -> None:
    split = make_tally({"confirmed": 2}, stratum="m2") + make_tally({"failed": 1, RELAPSED: 1}, epoch=1)
    counts = evidence.stage_counts(split, 0)
    assert (counts.opened, counts.confirmed, counts.failures) == (3, 2, 1)


def test_every_state_is_counted_once_and_relapses_are_no_devices() -> None:
    counts = evidence.stage_counts(ONE_OF_EACH, 0)
    assert counts.opened == evidence.opened(ONE_OF_EACH) == len(UpdateState) == 19
    assert counts.reached == len(UpdateState) - len(update.NEUTRAL)
    assert (counts.resolved, counts.failures, counts.unreached) == (5, 4, 1)
    assert counts.in_flight == evidence.in_flight(ONE_OF_EACH) == 7
    assert evidence.pending(ONE_OF_EACH) == 1


def test_devices_taken_are_counted_per_stratum_and_what_happened_to_them_is_no_device() -> None:
    tally = ONE_OF_EACH + make_tally({"pending": 3, MET: 5}, stratum="m2")
    assert evidence.opened_by_stratum(tally) == {"m1": 19, "m2": 3}


def test_slots_and_devices_are_counted_over_all_stages() -> None:
    tally = make_tally({"offered": 2, "pending": 3}) + make_tally({"running": 4, "pending": 1}, stage=2)
    assert (evidence.in_flight(tally), evidence.pending(tally), evidence.opened(tally)) == (6, 4, 10)


def test_for_the_halt_everybody_exposed_counts_and_who_never_began_does_not() -> None:
    (total,) = evidence.halt_evidence(make_rollout(), MIXED)
    assert (total.stratum, total.failures, total.exposed) == ("", 3, 96)
    assert total.e_value == gate.e_value(3, 96, 0.01)
    assert total.threshold == pytest.approx(20)
    assert not total.halts


def test_for_the_halt_a_relapse_is_a_failure_of_a_device_already_counted() -> None:
    tally = make_tally({"confirmed": 10}) + make_tally({RELAPSED: 2}, stage=1)
    (total,) = evidence.halt_evidence(make_rollout(), tally)
    assert (total.failures, total.exposed, total.halts) == (2, 10, True)


def test_only_the_present_epoch_is_evidence() -> None:
    tally = make_tally({"failed": 9, "confirmed": 9}) + make_tally({"failed": 1, "confirmed": 4}, epoch=1)
    (total,) = evidence.halt_evidence(make_rollout(epoch=1), tally)
    assert (total.failures, total.exposed) == (1, 5)
    assert evidence.stage_bound(make_rollout(epoch=1), tally).exposed == 5


@pytest.mark.parametrize(("epoch", "threshold"), [(0, 20), (1, 40), (2, 80), (3, 160)])
def test_each_epoch_has_half_the_alpha_of_the_one_before(epoch: int, threshold: float) -> None:
    (total,) = evidence.halt_evidence(make_rollout(epoch=epoch), {})
    assert total.threshold == pytest.approx(threshold)


def test_half_of_alpha_is_for_the_total_and_half_is_shared_by_the_strata() -> None:
    tally = make_tally({"confirmed": 30}, stratum="m1") + make_tally({"failed": 1, "lost": 1}, stratum="m3")
    found = evidence.halt_evidence(make_rollout(strata=4), tally)
    assert [(item.stratum, item.failures, item.exposed) for item in found] == [("", 2, 32), ("m1", 0, 30), ("m3", 2, 2)]
    assert [item.threshold for item in found] == pytest.approx([40, 160, 160])
    assert sum(1 / item.threshold for item in (found[0], *[found[1]] * 4)) == pytest.approx(0.05)


def test_one_bad_model_is_seen_where_the_total_looks_fine() -> None:
    good = {f"m{number}": 100 for number in range(1, 4)}
    tally = Counter[TallyKey]()
    for stratum, count in good.items():
        tally += make_tally({"confirmed": count}, stratum=stratum)
    tally += make_tally({"failed": 5, "confirmed": 10}, stratum="m9")
    found = evidence.halt_evidence(make_rollout(strata=4), tally)
    assert {item.stratum for item in found if item.halts} == {"m9"}


def test_for_passing_everything_unresolved_counts_as_failed() -> None:
    bound = evidence.stage_bound(make_rollout(), MIXED)
    assert (bound.failures, bound.exposed) == (6, 96)
    assert bound.upper == gate.upper_bound(6, 96)


def test_for_passing_a_relapse_is_a_failure_more() -> None:
    tally = make_tally({"confirmed": 50}) + make_tally({RELAPSED: 1}, stage=1)
    bound = evidence.stage_bound(make_rollout(), tally)
    assert (bound.failures, bound.exposed) == (1, 50)


@pytest.mark.parametrize(
    ("limits", "stage", "limit"),
    [((0.2, 0.08, 0.05), 1, 0.08), ((), 0, 0.30), ((), 1, 0.10), ((), 2, 0.05), ((None, None, 0.04), 2, 0.04)],
)
def test_limit_is_that_of_the_plan_or_what_all_devices_so_far_can_show(
    limits: Sequence[float | None], stage: int, limit: float
) -> None:
    rollout = make_rollout(make_plan((20, 60, REST), limits), 200, stage=stage)
    assert evidence.stage_bound(rollout, {}).limit == limit


def test_bound_holds_up_to_its_limit() -> None:
    assert evidence.Bound(0, 10, 0.25, 0.25).holds
    assert not evidence.Bound(0, 10, 0.26, 0.25).holds


@given(st.lists(st.sampled_from([F.CONFIRMED, F.FAILED, F.SILENT]), min_size=1, max_size=60), st.data())
def test_evidence_now_never_exceeds_evidence_at_the_end(ends: list[FactKind], data: st.DataObject) -> None:
    """A whole stage is in flight; whatever arrives first, E only comes up to what it will be."""
    rollout = make_rollout(make_plan((len(ends),)), len(ends))
    context = Context(Deadlines(), stage=0, epoch=0)
    updates = [make_update(UpdateState.INSTALLED, id=number) for number in range(len(ends))]
    values = [_e_value(rollout, updates)]
    for number in data.draw(st.permutations(range(len(ends)))):
        after = update.apply(updates[number], Fact(ends[number], rel=2), context, 1.0)
        assert isinstance(after, Update)
        updates[number] = after
        values.append(_e_value(rollout, updates))
    assert values == sorted(values)


def _e_value(rollout: Rollout, updates: Sequence[Update]) -> float:
    tally = Counter(key for item in updates for key in update.contributions(item))
    (total,) = evidence.halt_evidence(rollout, tally)
    return total.e_value


@given(st.integers(1, 400), st.data())
def test_late_successes_never_halt_a_good_release(size: int, data: st.DataObject) -> None:
    """What does not halt when all is known does not halt on the way, with a whole stage in flight."""
    rollout = make_rollout(make_plan((size,)), size)
    rule = HaltRule()
    least = gate.least_failures_to_halt(size, rule.tolerated, 1 / rule.alpha) or size + 1
    failures = data.draw(st.integers(0, min(least - 1, size)))
    failed = data.draw(st.integers(0, failures))
    confirmed = data.draw(st.integers(0, size - failures))
    known = {"failed": failed, "confirmed": confirmed, "installed": size - failed - confirmed}
    (total,) = evidence.halt_evidence(rollout, make_tally(known))
    assert not total.halts


def test_another_attempt_changes_the_evidence_by_nothing() -> None:
    """Whatever becomes of a device that failed and tries again, k and n of its epoch stay what they were."""
    rollout = make_rollout()
    others = make_tally({"confirmed": 13, "failed": 1})
    failed = make_update(UpdateState.FAILED)
    before = evidence.halt_evidence(rollout, others + Counter(update.contributions(failed)))
    for state in UpdateState:
        for epoch in (0, 1):
            again = failed._replace(state=state, epoch=epoch, attempt=2, failed_epoch=0)
            tally = others + Counter(update.contributions(again))
            assert evidence.halt_evidence(rollout, tally) == before, (state, epoch)
            bound = evidence.stage_bound(rollout, tally)
            assert bound.exposed == 15
            assert bound.failures >= 2
