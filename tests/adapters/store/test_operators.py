"""Operators, tokens, proposals and reviews on a real file: what is stored is what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.store import SqlStore
from orchestrator.core.trust.approval import Matter, Proposal, State, Vote
from orchestrator.core.trust.roles import Role
from orchestrator.errors import ConflictError
from orchestrator.ports import Lane, Operator, Review, Token
from tests.support.builders import make_draft
from tests.support.factory import stock
from tests.support.store import opened

ANN = Operator("ann", "ann-b", (Role.OPERATOR, Role.APPROVER), 5.0)
BEN = Operator("ben", "ben-c", (Role.VIEWER,), 6.0)
TOKEN = Token("0a", "ann", "h" * 64, 7.0, 70.0)
PROPOSAL = Proposal(0, Matter.START, "spring", "d" * 64, "start of spring", "ann", "ann-b", "why", 1.0, 9.0, 2)
REVIEW = Review(0, Matter.RESUME, "spring", "resume of spring", "root@local", "", "night", 3.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with opened(tmp_path) as made:
        yield made


async def write(store: SqlStore, work: Any) -> Any:
    return await store.transact(Lane.OPERATOR, work)


async def test_accounts_come_back_in_the_order_of_their_names(store: SqlStore) -> None:
    await write(store, lambda tx: (tx.add_operator(BEN), tx.add_operator(ANN)))
    assert await store.read(lambda tx: tx.operators()) == [ANN, BEN]
    assert await store.read(lambda tx: (tx.operator("ben"), tx.operator("cleo"))) == (BEN, None)


async def test_a_name_is_taken_once(store: SqlStore) -> None:
    await write(store, lambda tx: tx.add_operator(ANN))
    with pytest.raises(ConflictError, match="'ann' exists"):
        await write(store, lambda tx: tx.add_operator(replace(ANN, person="x")))


async def test_a_token_is_marked_revoked_once_and_goes_with_its_account(store: SqlStore) -> None:
    other = replace(TOKEN, id="0b", made_at=6.0)
    await write(store, lambda tx: (tx.add_operator(ANN), tx.add_token(TOKEN), tx.add_token(other)))
    await write(store, lambda tx: (tx.mark_token("0a", 8.0), tx.revoke_token("0a", 9.0), tx.revoke_token("0a", 10.0)))
    kept = replace(TOKEN, used_at=8.0, revoked_at=9.0)
    assert await store.read(lambda tx: tx.tokens()) == [other, kept]
    assert await store.read(lambda tx: (tx.token("0a"), tx.token("0c"))) == (kept, None)
    await write(store, lambda tx: tx.remove_operator("ann"))
    assert await store.read(lambda tx: (tx.tokens(), tx.operators())) == ([], [])


async def test_a_token_belongs_to_an_account(store: SqlStore) -> None:
    with pytest.raises(IntegrityError):
        await write(store, lambda tx: tx.add_token(TOKEN))


async def test_a_proposal_comes_back_with_its_votes_in_order(store: SqlStore) -> None:
    made: Proposal = await write(store, lambda tx: tx.add_proposal(PROPOSAL))
    assert made == replace(PROPOSAL, id=1)
    votes = (Vote("cleo", "cleo", True, "good", 2.0), Vote("ben", "ben-c", False, "bad", 3.0))
    voted = replace(made, state=State.REJECTED, votes=votes)
    await write(store, lambda tx: (tx.save_proposal(replace(made, votes=votes[:1])), tx.save_proposal(voted)))
    assert await store.read(lambda tx: (tx.proposal(1), tx.proposal(2))) == (voted, None)


async def test_an_account_has_one_open_proposal_on_a_matter(store: SqlStore) -> None:
    first: Proposal = await write(store, lambda tx: tx.add_proposal(PROPOSAL))
    with pytest.raises(IntegrityError):
        await write(store, lambda tx: tx.add_proposal(PROPOSAL))
    others = [
        replace(PROPOSAL, matter=Matter.RESUME),
        replace(PROPOSAL, object="autumn"),
        replace(PROPOSAL, proposer="ben"),
    ]
    for other in others:
        await write(store, lambda tx, other=other: tx.add_proposal(other))
    assert await store.read(lambda tx: tx.open_proposal(Matter.START, "spring", "ann")) == first
    for state in (State.APPROVED, State.USED):
        await write(store, lambda tx, state=state: tx.save_proposal(replace(first, state=state)))
        found = await store.read(lambda tx: tx.open_proposal(Matter.START, "spring", "ann"))
        assert (found is None) == (state is State.USED)
    again: Proposal = await write(store, lambda tx: tx.add_proposal(PROPOSAL))
    assert [item.id for item in await store.read(lambda tx: tx.proposals(2))] == [again.id, again.id - 1]
    about = await store.read(lambda tx: tx.proposals_about("spring"))
    assert {item.object for item in about} == {"spring"}
    assert [item.id for item in about] == [again.id, first.id + 3, first.id + 1, first.id]


async def test_newer_proposals_hide_none_that_is_open(store: SqlStore) -> None:
    for name in ("spring", "autumn", "winter"):
        await write(store, lambda tx, name=name: tx.add_proposal(replace(PROPOSAL, object=name)))
    await write(store, lambda tx: tx.add_proposal(replace(PROPOSAL, object="late", expires_at=5.0)))
    await write(store, lambda tx: tx.save_proposal(replace(PROPOSAL, id=2, state=State.REJECTED)))

    async def found(now: float, limit: int) -> list[str]:
        return [item.object for item in await store.read(lambda tx: tx.open_proposals(now, limit))]

    assert await found(4.0, 9) == ["spring", "winter", "late"]
    assert await found(5.0, 1) == ["spring"]
    assert await found(5.0, 9) == ["spring", "winter"]
    assert await found(9.0, 9) == []


async def test_a_review_is_open_until_it_is_closed(store: SqlStore) -> None:
    made: Review = await write(store, lambda tx: tx.add_review(REVIEW))
    assert await store.read(lambda tx: tx.open_reviews()) == [made]
    closed = replace(made, closed_by="ben-c", closed_at=8.0, finding="it was right")
    await write(store, lambda tx: tx.close_review(closed))
    assert await store.read(lambda tx: (tx.open_reviews(), tx.review(made.id), tx.review(99))) == ([], closed, None)


async def test_a_warrant_belongs_to_a_rollout_and_the_last_one_counts(store: SqlStore) -> None:
    with pytest.raises(IntegrityError):
        await write(store, lambda tx: tx.set_warrant(7, b"a.b.c", 1.0))

    def work(tx: Any) -> int:
        stock(tx)
        rollout_id: int = tx.add_rollout(make_draft(), b"secret").id
        tx.set_warrant(rollout_id, b"a.b.c", 1.0)
        tx.set_warrant(rollout_id, b"a.b.c\nd..e", 2.0)
        return rollout_id

    rollout_id = await write(store, work)
    assert await store.read(lambda tx: (tx.warrant(rollout_id), tx.warrant(99))) == (b"a.b.c\nd..e", None)
