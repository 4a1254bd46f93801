"""The slots of all rollouts together: what is reserved stays free for urgent rollouts, and nobody goes beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Reason, Urgency
from orchestrator.core.pace.budget import FULL, URGENT, Budget, Slots, hold, slots
from orchestrator.core.rollout import Decision, Offer, Open
from tests.support.builders import make_rollout

U = Urgency
TEN = Budget(in_flight=10, reserved=0.2)


@pytest.mark.parametrize(
    ("urgency", "taken", "left"),
    [
        (U.NORMAL, {}, 8),
        (U.BACKGROUND, {U.NORMAL: 5, U.BACKGROUND: 2}, 1),
        (U.BACKGROUND, {U.BACKGROUND: 8}, 0),
        (U.NORMAL, {U.SECURITY: 5}, 5),
        (U.NORMAL, {U.SECURITY: 2}, 8),
        (U.SECURITY, {U.BACKGROUND: 8}, 2),
        (U.EMERGENCY, {U.SECURITY: 1, U.NORMAL: 8}, 1),
        (U.EMERGENCY, {U.SECURITY: 10}, 0),
        (U.SECURITY, {}, 10),
        (U.NORMAL, {U.NORMAL: 12}, 0),
    ],
)
def test_what_is_left(urgency: Urgency, taken: dict[Urgency, int], left: int) -> None:
    assert slots(TEN, urgency, taken).devices == left


TAKING = st.lists(st.tuples(st.sampled_from(Urgency), st.integers(1, 30)), max_size=40)


@given(st.builds(Budget, st.integers(1, 100), st.floats(0, 1)), TAKING)
def test_whoever_takes_what_is_left_leaves_the_reserve_to_the_urgent(
    budget: Budget, asked: list[tuple[Urgency, int]]
) -> None:
    taken = dict.fromkeys(Urgency, 0)
    for urgency, wanted in asked:
        taken[urgency] += min(wanted, slots(budget, urgency, taken).devices)
        assert sum(taken.values()) <= budget.in_flight
        assert sum(count for each, count in taken.items() if each not in URGENT) <= budget.open
    free = budget.in_flight - sum(taken.values())
    assert slots(budget, U.SECURITY, taken).devices == free


def test_a_budget_of_which_all_is_reserved_still_lets_one_pass() -> None:
    assert slots(Budget(100, 1.0), U.NORMAL, {}).devices == 1


def test_offers_are_cut_to_the_slots_that_are_left() -> None:
    rollout = make_rollout()
    wanted = Decision(rollout, (Open(3), Offer(9)), Reason("offering", "9 more"))
    assert hold(wanted, Slots(10, 1, urgent=False)) is wanted
    some = hold(wanted, Slots(10, 6, urgent=False))
    assert (some.effects, some.reason.code) == ((Open(3), Offer(4)), "offering")
    assert some.reason.text == "4 more devices are offered the release; 5 wait for slots of the fleet"
    one = hold(wanted, Slots(10, 9, urgent=False))
    assert one.reason.text == "1 more device is offered the release; 8 wait for slots of the fleet"
    none = hold(wanted, Slots(10, 10, urgent=False))
    assert (none.effects, none.reason.code, none.wake_at) == ((Open(3),), FULL, None)
    assert none.reason.text == "waits for a slot of the fleet: all 10 that are not kept for urgent rollouts are taken"
    assert "kept" not in hold(wanted, Slots(10, 12, urgent=True)).reason.text
