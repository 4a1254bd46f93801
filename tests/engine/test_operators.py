"""Accounts and tokens of operators, on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.store import SqlStore
from orchestrator.core.trust.approval import Matter, Proposal, State
from orchestrator.core.trust.roles import SHARED, Caller, Role
from orchestrator.engine.trust import approvals, operators
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.operators import DAY_S, Issued, NewOperator
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, RequestError
from orchestrator.ports import Lane
from tests.support.store import opened

ROOT = Wish(Caller("root@local", "", SHARED, local=True))
RULES = Rules()
NOW = 1000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with opened(tmp_path) as made:
        yield made


async def write(store: SqlStore, work: Any) -> Any:
    return await store.transact(Lane.OPERATOR, work)


async def add(store: SqlStore, name: str, *roles: Role, person: str = "", days: int = 90, wish: Wish = ROOT) -> Any:
    new = NewOperator(name, person or name, roles or (Role.APPROVER,), days)
    return await write(store, lambda tx: operators.add(tx, new, wish, RULES, NOW))


async def opens(store: SqlStore, text: str, now: float = NOW) -> str | None:
    found = await store.read(lambda tx: operators.recognise(tx, text, now))
    return found[0].name if found else None


async def test_a_token_opens_its_account_and_is_not_stored(store: SqlStore, tmp_path: Path) -> None:
    made: Issued = await add(store, "ann")
    assert made.text.startswith(f"otad_op_{made.kept.id}_")
    assert len(made.text) == len("otad_op_") + 16 + 1 + 43
    assert await opens(store, made.text) == "ann"
    await store.close()
    secret = made.text.rpartition(f"{made.kept.id}_")[2].encode()
    assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())


async def test_what_is_almost_a_token_opens_nothing(store: SqlStore) -> None:
    text = (await add(store, "ann")).text
    other = (await add(store, "ben")).text
    swapped = text[:24] + other[24:]
    for wrong in ("", "otad_op_", text[:-1], text + "x", text.swapcase(), text[5:], f"x{text}", swapped, "otad_op__"):
        assert await opens(store, wrong) is None


async def test_a_token_ends_with_its_time(store: SqlStore) -> None:
    text = (await add(store, "ann", days=2)).text
    assert await opens(store, text, NOW + 2 * DAY_S - 0.1) == "ann"
    assert await opens(store, text, NOW + 2 * DAY_S) is None


async def test_revoked_and_removed_mean_at_once(store: SqlStore) -> None:
    made: Issued = await add(store, "ann", Role.VIEWER)
    more: Issued = await write(store, lambda tx: operators.issue(tx, "ann", 5, ROOT, RULES, NOW))
    await write(store, lambda tx: operators.revoke(tx, made.kept.id, ROOT.caller, NOW))
    assert (await opens(store, made.text), await opens(store, more.text)) == (None, "ann")
    assert await write(store, lambda tx: operators.remove(tx, "ann", ROOT, RULES, NOW)) is None
    assert await opens(store, more.text) is None


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (NewOperator("Ann", "ann", (Role.VIEWER,), 90), "not an identifier"),
        (NewOperator("ann", "", (Role.VIEWER,), 90), "not an identifier"),
        (NewOperator("ann", "ann", (), 90), "needs a role"),
        (NewOperator("ann", "ann", (Role.VIEWER,), 0), "1 to 365 days"),
        (NewOperator("ann", "ann", (Role.VIEWER,), 366), "1 to 365 days"),
    ],
)
async def test_an_account_that_cannot_be(store: SqlStore, new: NewOperator, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        await write(store, lambda tx: operators.add(tx, new, ROOT, RULES, NOW))


async def test_what_does_not_exist_and_what_does(store: SqlStore) -> None:
    for work in (
        lambda tx: operators.issue(tx, "ann", 5, ROOT, RULES, NOW),
        lambda tx: operators.remove(tx, "ann", ROOT, RULES, NOW),
        lambda tx: operators.revoke(tx, "00", ROOT.caller, NOW),
    ):
        with pytest.raises(NotFoundError):
            await write(store, work)
    await add(store, "ann")
    for name in ("ann", "operator", "orchestrator"):
        with pytest.raises(ConflictError, match="exists"):
            await add(store, name)


async def test_once_two_may_approve_a_third_needs_one_of_them(store: SqlStore) -> None:
    for name in ("ann", "ben"):
        assert isinstance(await add(store, name, Role.APPROVER, Role.ADMIN), Issued)
    ann = Wish(Caller("ann", "ann", frozenset({Role.ADMIN})))
    waits: Proposal = await add(store, "cleo", Role.APPROVER, wish=ann)
    assert (waits.matter, waits.object, waits.needed, waits.state) == (Matter.OPERATOR, "cleo", 1, State.PROPOSED)
    assert await store.read(lambda tx: tx.operator("cleo")) is None
    ben = Caller("ben", "ben", frozenset({Role.APPROVER}))
    await write(store, lambda tx: approvals.vote(tx, waits.id, ben, "known to me", NOW, approves=True))
    # Approved was an approver; an admin is something else, and the approval is gone.
    other: Proposal = await add(store, "cleo", Role.ADMIN, wish=ann)
    assert other.id != waits.id
    voided = await store.read(lambda tx: tx.proposal(waits.id))
    assert voided is not None
    assert voided.state is State.VOID
    await write(store, lambda tx: approvals.vote(tx, other.id, ben, "that too", NOW, approves=True))
    assert isinstance(await add(store, "cleo", Role.ADMIN, wish=ann), Issued)


async def test_nobody_gets_round_two_persons_by_tokens_or_removals(store: SqlStore) -> None:
    for name in ("ann", "ben"):
        await add(store, name, Role.ADMIN)
    ann = Wish(Caller("ann", "ann", frozenset({Role.ADMIN})))
    issue = await write(store, lambda tx: operators.issue(tx, "ben", 9, ann, RULES, NOW))
    remove = await write(store, lambda tx: operators.remove(tx, "ben", ann, RULES, NOW))
    assert isinstance(issue, Proposal)
    assert isinstance(remove, Proposal)
    assert len(await store.read(lambda tx: tx.tokens())) == 2
    # Whoever only reads is of no account here.
    assert isinstance(await add(store, "viewer", Role.VIEWER, wish=ann), Issued)
    assert isinstance(await write(store, lambda tx: operators.issue(tx, "viewer", 9, ann, RULES, NOW)), Issued)


async def test_nobody_invents_a_person_who_proposes_or_takes_the_place_of_one(store: SqlStore) -> None:
    """Alone, an admin who holds the token of an operator could propose as that one and approve as themselves."""
    await add(store, "dee", Role.OPERATOR)
    for name in ("ann", "ben"):
        await add(store, name, Role.ADMIN)
    ann = Wish(Caller("ann", "ann", frozenset({Role.ADMIN})))
    ghost = await add(store, "ghost", Role.VIEWER, Role.OPERATOR, wish=ann)
    stolen = await write(store, lambda tx: operators.issue(tx, "dee", 9, ann, RULES, NOW))
    for waits in (ghost, stolen):
        assert isinstance(waits, Proposal)
        assert waits.text.endswith("whoever holds its token speaks for that person")
    assert len(await store.read(lambda tx: tx.tokens())) == 3
    # To take away what only proposes opens no way round.
    assert await write(store, lambda tx: operators.remove(tx, "dee", ann, RULES, NOW)) is None


async def test_an_approval_binds_how_long_the_token_works(store: SqlStore) -> None:
    for name in ("ann", "ben"):
        await add(store, name, Role.ADMIN)
    ann = Wish(Caller("ann", "ann", frozenset({Role.ADMIN})))
    waits: Proposal = await add(store, "cleo", wish=ann, days=1)
    assert "with a token of 1 days" in waits.text
    ben = Caller("ben", "ben", frozenset({Role.APPROVER}))
    await write(store, lambda tx: approvals.vote(tx, waits.id, ben, "for a day", NOW, approves=True))
    assert isinstance(await add(store, "cleo", wish=ann, days=365), Proposal)


async def test_the_glass_breaks_at_the_socket_alone(store: SqlStore) -> None:
    for name in ("ann", "ben"):
        await add(store, name)
    far = Wish(Caller("operator", "", SHARED), break_glass="both are ill")
    with pytest.raises(ForbiddenError) as caught:
        await add(store, "cleo", wish=far)
    assert caught.value.code == "not_local"
    here = Wish(ROOT.caller, break_glass="both are ill")
    assert isinstance(await add(store, "cleo", wish=here), Issued)
    (review,) = await store.read(lambda tx: tx.open_reviews())
    assert (review.matter, review.object, review.actor, review.reason) == (
        Matter.OPERATOR,
        "cleo",
        "root@local",
        "both are ill",
    )


async def test_every_act_is_in_the_audit_log_and_no_token_is(store: SqlStore) -> None:
    made: Issued = await add(store, "ann", Role.VIEWER)
    await write(store, lambda tx: operators.revoke(tx, made.kept.id, ROOT.caller, NOW))
    await write(store, lambda tx: operators.remove(tx, "ann", ROOT, RULES, NOW))
    entries = await store.read(lambda tx: tx.audit_entries(0, 100))
    assert [entry.action for entry in entries] == [
        "operator.added",
        "operator.token_issued",
        "operator.token_revoked",
        "operator.removed",
    ]
    assert {entry.actor for entry in entries} == {"root@local"}
    assert all(made.text not in entry.detail and made.kept.hash not in entry.detail for entry in entries)
