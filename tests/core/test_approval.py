"""Two persons: what needs them, and that no order of turns gets round them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Phase, Urgency
from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import OPEN, TABLE, ApprovalNeededError, Matter, Need, Proposal, State, Turn, Vote
from orchestrator.errors import ConflictError, ForbiddenError

PERSONS = ("ann", "ben", "cleo", "dee")
EVERYBODY = frozenset(PERSONS)


def proposal(**changes: Any) -> Proposal:
    """Return a proposal of ann's that one other person must approve until 3600."""
    known = Proposal(
        1, Matter.START, "spring", "d", "start of spring: it is big", "ann-laptop", "ann", "", 0.0, 3600.0, 1
    )
    return replace(known, **changes)


def yes(person: str, at: float = 1.0, actor: str = "") -> Vote:
    return Vote(actor or person, person, True, "well", at)


def no(person: str, at: float = 1.0) -> Vote:
    return Vote(person, person, False, "not now", at)


# What needs an approval


def start(urgency: Urgency = Urgency.NORMAL, *, downgrade: bool = False, audience: int = 50, above: float = 1.0) -> int:
    need = approval.for_start(urgency, downgrade=downgrade, audience=audience, fleet=100, approve_above=above)
    return need.approvals if need else 0


SMALL: Any = {"downgrade": False, "audience": 30, "fleet": 100}


def test_what_a_start_needs() -> None:
    assert [start(item) for item in Urgency] == [0, 0, 0, 2]
    assert start(downgrade=True) == 1
    assert start(Urgency.EMERGENCY, downgrade=True) == 2
    assert [start(audience=size, above=0.5) for size in (0, 50, 51, 100)] == [0, 0, 1, 1]
    assert start(audience=100) == 0
    beside = [approval.for_start(Urgency.NORMAL, **SMALL, approve_above=0.5, beside=many) for many in (0, 20, 21, 200)]
    assert [need is not None for need in beside] == [False, False, True, True]
    assert beside[-1] is not None and "it reaches 100% of the fleet" in beside[-1].because
    assert approval.for_start(Urgency.NORMAL, downgrade=False, audience=0, fleet=0, approve_above=0.0) is None


def test_resuming_needs_one_where_it_overrides_a_gate() -> None:
    assert {phase for phase in Phase if approval.for_resume(phase)} == {Phase.HALTED, Phase.INCONCLUSIVE}


def test_passing_a_stage_on_a_word_always_needs_one_and_an_edit_where_it_loosens() -> None:
    assert approval.for_hurry(1).approvals == 1
    assert approval.for_hurry(1).because.startswith("stage 2 would pass ")
    assert approval.for_edit(()) is None
    assert approval.for_edit(("in_flight", "halt.tolerated")) == Need(1, "it loosens in_flight, halt.tolerated")


def test_a_shared_login_needs_one_more() -> None:
    assert [approval.needed(Need(2, ""), person, 9) for person in ("ann", "")] == [2, 3]


def test_no_more_approvals_are_asked_for_than_persons_exist_but_always_another_one() -> None:
    assert [approval.needed(Need(2, ""), "ann", others) for others in (0, 1, 2, 3)] == [1, 1, 2, 2]
    assert [approval.needed(Need(2, ""), "", others) for others in (0, 1, 2, 3)] == [2, 2, 2, 3]
    assert approval.needed(Need(1, ""), "ann", 0) == 1


# The table


def test_the_table_is_whole_and_open_states_are_those_with_a_way_out() -> None:
    assert set(TABLE) == set(State)
    assert {state for state, turns in TABLE.items() if turns} == OPEN
    assert set().union(*TABLE.values()) == set(Turn)
    assert [state for state, turns in TABLE.items() if Turn.USE in turns] == [State.APPROVED]


# Votes


def test_another_person_approves_and_the_proposer_uses_it_once() -> None:
    approved = approval.vote(proposal(), yes("ben"))
    assert approved.state is State.APPROVED
    used = approval.claim(approved, "d", EVERYBODY, 2.0)
    assert used.state is State.USED
    assert approval.claim(used, "d", EVERYBODY, 3.0) == used


@pytest.mark.parametrize("actor", ["ann-laptop", "ann-phone"])
def test_no_account_of_the_proposers_person_approves(actor: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        approval.vote(proposal(), yes("ann", actor=actor))
    assert caught.value.code == "own_proposal"


def test_two_accounts_of_one_person_are_one() -> None:
    once = approval.vote(proposal(needed=2), yes("ben", actor="ben-laptop"))
    assert once.state is State.PROPOSED
    with pytest.raises(ConflictError) as caught:
        approval.vote(once, yes("ben", actor="ben-phone"))
    assert caught.value.code == "same_person"
    assert approval.vote(once, yes("cleo")).state is State.APPROVED


def test_a_shared_login_approves_nothing_but_may_reject() -> None:
    nobody = Vote("operator", "", True, "well", 1.0)
    with pytest.raises(ForbiddenError) as caught:
        approval.vote(proposal(), nobody)
    assert caught.value.code == "nobody"
    assert approval.vote(proposal(), replace(nobody, approves=False)).state is State.REJECTED


def test_one_rejection_ends_it_also_after_the_approval() -> None:
    rejected = approval.vote(approval.vote(proposal(), yes("ben")), no("cleo"))
    assert rejected.state is State.REJECTED
    assert approval.claim(rejected, "d", EVERYBODY, 2.0).state is State.REJECTED
    with pytest.raises(ConflictError):
        approval.vote(rejected, yes("dee"))


@pytest.mark.parametrize("needed", [1, 2])
def test_who_approved_may_think_better_of_it(needed: int) -> None:
    approved = approval.vote(proposal(needed=needed), yes("ben"))
    rejected = approval.vote(approved, no("ben", at=2.0))
    assert rejected.state is State.REJECTED
    assert [(item.actor, item.approves) for item in rejected.votes] == [("ben", False)]


def test_the_time_ends_votes_and_use() -> None:
    with pytest.raises(ConflictError) as caught:
        approval.vote(proposal(), yes("ben", at=3600.0))
    assert caught.value.code == "proposal_expired"
    approved = approval.vote(proposal(), yes("ben", at=3599.9))
    assert approval.claim(approved, "d", EVERYBODY, 3600.0).state is State.EXPIRED
    assert approval.lapsed(proposal(), 3599.9).state is State.PROPOSED


def test_what_changed_since_is_void() -> None:
    for item in (proposal(), approval.vote(proposal(), yes("ben"))):
        assert approval.claim(item, "another", EVERYBODY, 2.0).state is State.VOID


def test_a_vote_counts_no_more_when_its_person_may_not_approve_any_more() -> None:
    approved = approval.vote(proposal(), yes("ben"))
    doubted = approval.claim(approved, "d", EVERYBODY - {"ben"}, 2.0)
    assert (doubted.state, doubted.votes) == (State.PROPOSED, ())
    assert approval.claim(approval.vote(doubted, yes("cleo")), "d", EVERYBODY - {"ben"}, 3.0).state is State.USED


def test_the_error_says_how_many_are_missing_and_what_to_do() -> None:
    one = ApprovalNeededError(approval.vote(proposal(needed=2), yes("ben")))
    assert one.message == (
        "start of spring: it is big. Another person must approve it with `ota approve 1 --reason WHY`; "
        "then give this command once more"
    )
    assert "2 other persons must" in ApprovalNeededError(proposal(needed=2)).message.lower()


def test_the_digest_is_of_every_part() -> None:
    parts: list[Any] = ["start", {"name": "spring"}, 5, ["a", "b"]]
    whole = approval.digest(*parts)
    assert whole == approval.digest(*parts)
    changed: list[Any] = ["resume", {"name": "autumn"}, 6, ["b", "a"]]
    for at, other in enumerate(changed):
        assert approval.digest(*(other if place == at else part for place, part in enumerate(parts))) != whole


TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("vote"), st.sampled_from((*PERSONS, "")), st.booleans()),
        st.tuples(st.just("claim"), st.sampled_from(("d", "other")), st.frozensets(st.sampled_from(PERSONS))),
    ),
    max_size=12,
)


@given(TURNS, st.integers(1, 3), st.sampled_from((*PERSONS, "")), st.lists(st.floats(0, 500), max_size=12))
def test_no_order_of_turns_uses_it_without_enough_other_persons(
    turns: list[Any], needed: int, proposer: str, pauses: list[float]
) -> None:
    item, now = proposal(person=proposer, needed=needed), 0.0
    for at, (what, who, more) in enumerate(turns):
        now += pauses[at] if at < len(pauses) else 400.0
        before = item
        if what == "vote":
            try:
                item = approval.vote(item, Vote(f"{who}-{at}", who, more, "", now))
            except (ForbiddenError, ConflictError):
                continue
        else:
            item = approval.claim(item, who, more, now)
        assert item.state is before.state or item.state in {*TABLE[before.state].values()}
        if item.state is State.USED and before.state is not State.USED:
            counted = {vote.person for vote in item.votes if vote.approves and vote.person in more}
            assert len(counted - {proposer, ""}) >= needed
            assert who == item.digest
            assert now < item.expires_at
            assert not any(not vote.approves for vote in item.votes)
        if before.state not in OPEN:
            assert item == before


@pytest.mark.parametrize("state", State)
def test_what_is_overtaken_is_void_and_what_is_over_stays_as_it_is(state: State) -> None:
    found = approval.overtake(proposal(state=state), 10.0)
    assert found.state is (State.VOID if state in OPEN else state)


def test_what_has_lapsed_already_is_not_overtaken() -> None:
    assert approval.overtake(proposal(), 3600.0).state is State.EXPIRED
