"""What every store promises of the answers to acts that came under a key."""

from __future__ import annotations

import pytest

from orchestrator.core.trust.approval import Matter, Proposal, State
from orchestrator.errors import ConflictError
from orchestrator.ports import Addition, Kept, Store, Tx
from orchestrator.ports.acts import joined
from tests.support.store import write

KEPT = Kept(b"what was asked", b"what was answered", 1000.0)
PROPOSAL = Proposal(
    id=1,
    matter=Matter.START,
    object="spring",
    digest="",
    text="",
    proposer="bo",
    person="bo",
    reason="",
    made_at=0.0,
    expires_at=1.0,
    needed=1,
    state=State.PROPOSED,
)


async def test_an_answer_is_kept_until_it_is_forgotten(store: Store) -> None:
    await write(store, lambda tx: tx.keep_answer(b"a", KEPT))
    assert await store.read(lambda tx: (tx.answer(b"a"), tx.answer(b"b"))) == (KEPT, None)
    assert await write(store, lambda tx: tx.forget_answers(1000.0, 10)) == 0
    assert await write(store, lambda tx: tx.forget_answers(1000.1, 10)) == 1
    assert await store.read(lambda tx: tx.answer(b"a")) is None


async def test_the_oldest_are_forgotten_first(store: Store) -> None:
    for at in (3.0, 1.0, 2.0):
        await write(store, lambda tx, at=at: tx.keep_answer(b"%d" % at, Kept(b"", b"", at)))
    assert await write(store, lambda tx: tx.forget_answers(10.0, 2)) == 2
    assert await store.read(lambda tx: [tx.answer(b"%d" % at) is None for at in (1, 2, 3)]) == [True, True, False]


def kept_as(name: bytes) -> Addition:
    def after(tx: Tx, result: object) -> None:
        tx.keep_answer(name, Kept(b"", str(result).encode(), 0.0))

    return Addition(lambda _: None, after)


async def test_what_is_added_joins_the_first_transaction_and_no_other(store: Store) -> None:
    with joined(kept_as(b"a")):
        await write(store, lambda _: "first")
        await write(store, lambda _: "second")
    await write(store, lambda _: "third")
    found = await store.read(lambda tx: tx.answer(b"a"))
    assert found is not None
    assert found.answer == b"first"


async def test_what_fails_leaves_neither_the_act_nor_its_answer(store: Store) -> None:
    def fails(tx: Tx) -> None:
        tx.keep_answer(b"act", KEPT)
        raise ConflictError("no")

    def refuses(_: Tx) -> None:
        raise ConflictError("no")

    with joined(kept_as(b"a")), pytest.raises(ConflictError):
        await write(store, fails)
    with joined(Addition(refuses, lambda *_: None)), pytest.raises(ConflictError):
        await write(store, lambda tx: tx.keep_answer(b"act", KEPT))
    assert await store.read(lambda tx: (tx.answer(b"a"), tx.answer(b"act"))) == (None, None)


async def test_a_proposal_is_no_act(store: Store) -> None:
    with joined(kept_as(b"a")):
        await write(store, lambda _: PROPOSAL)
    assert await store.read(lambda tx: tx.answer(b"a")) is None
