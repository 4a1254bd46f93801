"""What is said to change the verdict changes it, and one less does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging import evidence, prospect
from orchestrator.core.model import MET, Rollout, Tally
from tests.support.builders import REST, make_plan, make_rollout, make_tally

COUNTS = st.fixed_dictionaries(
    {"confirmed": st.integers(0, 80), "failed": st.integers(0, 5), "offered": st.integers(0, 40)}
)
ROLLOUT = make_rollout(make_plan((20, 60, REST)), 2000)


def halts(rollout: Rollout, tally: Tally) -> bool:
    return any(item.halts for item in evidence.halt_evidence(rollout, tally))


@given(COUNTS)
def test_so_many_more_failures_halt_and_one_less_does_not(counts: dict[str, int]) -> None:
    [found] = prospect.to_halt(ROLLOUT, make_tally(counts))
    healthy = counts["confirmed"] + counts["offered"]
    if found.more is None or found.more > healthy:
        return
    for more in {found.more, max(found.more - 1, 0)}:
        after = {"failed": counts["failed"] + more, "confirmed": healthy - more}
        assert halts(ROLLOUT, make_tally(after)) is (more == found.more)


@given(COUNTS)
def test_so_many_more_healthy_devices_pass_and_one_less_does_not(counts: dict[str, int]) -> None:
    found = prospect.to_pass(ROLLOUT, make_tally(counts))
    assert (found.failures, found.confirmed, found.under_way) == (
        counts["failed"],
        counts["confirmed"],
        counts["offered"],
    )
    assert found.more is not None
    after = {"failed": counts["failed"], "confirmed": counts["confirmed"] + found.more}
    assert evidence.stage_bound(ROLLOUT, make_tally(after)).holds
    if found.more:
        after["confirmed"] -= 1
        assert not evidence.stage_bound(ROLLOUT, make_tally(after)).holds


def test_a_failure_after_which_a_device_tries_again_stays_one() -> None:
    found = prospect.to_pass(ROLLOUT, make_tally({"confirmed": 3, "retried": 2, "pending": 4}))
    assert (found.failures, found.confirmed, found.under_way) == (2, 3, 0)


def test_a_device_met_in_its_soak_is_still_under_way() -> None:
    found = prospect.to_pass(ROLLOUT, make_tally({"confirmed": 3, MET: 2, "offered": 1}))
    assert (found.failures, found.confirmed, found.under_way) == (0, 3, 3)
