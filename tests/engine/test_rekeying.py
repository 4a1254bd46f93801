"""A new keyset while rollouts run: nothing signed before goes out, and everybody is offered what they still lack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.rollout import Command
from orchestrator.core.trigger import keyset_claims
from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.core.trust.roles import Caller, Role
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.footing import footing_of
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.engine.trust.rekeying import take_keyset
from orchestrator.errors import ConflictError, RequestError, TrustError
from orchestrator.ports import DeliveryKind, DeliveryState, Lane, Tx
from orchestrator.ports.operators import Operator
from orchestrator.verifier import KEYS as ROOT
from orchestrator.verifier import TRIGGER, Keyset, PublicKey
from orchestrator.wire.report import Kind
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.support.builders import REST, make_plan
from tests.support.factory import DEPLOYMENT, KEYS, TRIGGER_KEY, Plant, claims_of

D = DeliveryState
ROOT_KEY = FileSigner(ec.derive_private_key(21, ec.SECP256R1()))
NEXT_KEY = FileSigner(ec.derive_private_key(22, ec.SECP256R1()))
ADMIN = Wish(Caller("ada", "ada", frozenset({Role.ADMIN})), "the trigger key was stolen")


def public(signer: FileSigner, typ: str) -> PublicKey:
    return PublicKey(signer.kid, typ, signer.x, signer.y)


FIRST = {**KEYS, ROOT_KEY.kid: public(ROOT_KEY, ROOT)}


def keyset(epoch: int, *keys: PublicKey, signer: FileSigner = ROOT_KEY) -> bytes:
    entries = [{"kid": key.kid, "typ": key.typ, "x": encode64(key.x), "y": encode64(key.y)} for key in keys]
    claims = keyset_claims(
        deployment=DEPLOYMENT, epoch=epoch, keys=entries, need_root=1, need_cosign=1, issued_at=1_700_000_000
    )
    signed = signing_input(TokenType.KEYS, signer.kid, claims)
    return assemble(signed, signer.sign(signed))


def second(epoch: int = 2) -> bytes:
    """Return the keyset in which the stolen trigger key has been replaced."""
    kept = [key for key in FIRST.values() if key.typ != TRIGGER]
    return keyset(epoch, *kept, public(NEXT_KEY, TRIGGER))


def said(token: str | bytes) -> dict[str, Any]:
    """Return the claims of a trigger or recall of either keyset."""
    return claims_of(token, {**FIRST, NEXT_KEY.kid: public(NEXT_KEY, TRIGGER)})


class DeadError(Exception):
    """The process is dead."""


class Mortal:
    """A transaction in which the process dies after so many writes.

    Args:
        tx: the transaction.
        writes: after how many.
    """

    WRITES = frozenset({"save_proposal", "add_keyset", "stand_on", "audit", "withdraw", "plan"})

    def __init__(self, tx: Tx, writes: int) -> None:
        self._tx = tx
        self._left = writes

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tx, name)
        return partial(self._write, method) if name in self.WRITES else method

    def _write(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        result = method(*given, **named)
        self._left -= 1
        if not self._left:
            raise DeadError
        return result


def mortal(it: Plant, writes: int | None) -> Any:
    """Return a `transact` in which the process dies after so many writes, None for all of them and the commit."""
    transact = it.store.transact

    async def dying(lane: Lane, work: Callable[[Any], Any]) -> Any:
        result = await transact(lane, lambda tx: work(Mortal(tx, writes or WRITES + 1)))
        if writes is None:
            raise DeadError
        return result

    return dying


async def restarted(it: Plant) -> Keyring:
    """Start anew on the same file, and follow the keysets that are stored there."""
    await it.restart()
    stored = await it.store.read(lambda tx: tx.keysets())
    it.keyring = Keyring(Keyset(DEPLOYMENT, 1, FIRST, 1, 1), stored, [TRIGGER_KEY, NEXT_KEY], it.clock)
    it.clock.advance(it.settings.grace_s)
    return it.keyring


@pytest.fixture
def keyring(it: Plant) -> Keyring:
    it.keyring = Keyring(Keyset(DEPLOYMENT, 1, FIRST, 1, 1), (), [TRIGGER_KEY, NEXT_KEY], it.clock)
    return it.keyring


async def take(it: Plant, keyring: Keyring, lines: bytes, rules: Rules = Rules()) -> Keyset:  # noqa: B008 - frozen
    return await take_keyset(it.store, keyring, lines, ADMIN, rules, it.clock)


async def test_queued_tokens_are_made_anew_and_count_from_the_beginning(it: Plant, keyring: Keyring) -> None:
    await it.enrol(5)
    rollout = await it.running(make_plan((REST,), in_flight=3))
    await it.seal()
    await take(it, keyring, second())
    await it.seal()
    old, new = (await it.parcels(rollout))[:3], (await it.parcels(rollout))[3:]
    assert [item.state for item in old] == [D.VOID] * 3
    assert [(said(item.token)["ep"], said(item.token)["seq"]) for item in new] == [(2, 1), (2, 2), (2, 3)]
    assert sorted(said(item.token)["att"] for item in new) == sorted(said(item.token)["att"] for item in old)
    assert len({item.seq for item in (*old, *new)}) == 6


async def test_who_has_a_token_of_the_old_keys_gets_another_for_the_same_attempt(it: Plant, keyring: Keyring) -> None:
    await it.enrol(2)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await take(it, keyring, second())
    sent = await it.send()
    assert len(sent) == 2
    assert {said(token)["ep"] for _, token, _ in sent} == {2}
    updates = await it.updates(rollout)
    await it.confirm(updates)
    assert await it.states(rollout) == {"confirmed": 2}
    await it.tallies_hold(rollout)


async def test_who_gave_up_because_of_the_new_keys_is_offered_it_again(it: Plant, keyring: Keyring) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    updates = await it.updates(rollout)
    await it.say(updates, Kind.ACCEPTED)
    await take(it, keyring, second())
    await it.say(updates, Kind.RECALLED, n=1, code="new_keys")
    assert await it.states(rollout) == {"pending": 1}
    rollout = await it.advance(rollout)
    [(_, token, _)] = await it.send()
    assert said(token)["ep"] == 2
    await it.tallies_hold(rollout)


async def test_a_recall_that_waits_is_made_anew_too(it: Plant, keyring: Keyring) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.command(rollout, Command.HALT)
    await it.seal()
    await take(it, keyring, second())
    [(_, token, _)] = [item for item in await it.send() if said(item[1])["ep"] == 2]
    assert said(token)["act"] == "cancel"
    assert (await it.parcels(rollout, DeliveryKind.CANCEL))[-1].state is D.SENT


async def test_nothing_is_signed_under_old_keys_once_new_ones_are_stored(it: Plant, keyring: Keyring) -> None:
    """The commit and the moment we believe it are two: in between nothing is sealed."""
    await it.enrol(1)
    await it.running(make_plan((REST,)))
    await it.write(lambda tx: tx.add_keyset(2, second(), it.clock()))
    assert await it.sealer.seal_once() == 0
    keyring.take(second())
    assert await it.sealer.seal_once() == 1


async def test_after_a_restart_the_chain_is_followed_again(it: Plant, keyring: Keyring) -> None:
    await take(it, keyring, second())
    assert await it.store.read(lambda tx: tx.footing()) == footing_of(keyring.keyset)
    stored = await it.store.read(lambda tx: tx.keysets())
    again = Keyring(Keyset(DEPLOYMENT, 1, FIRST, 1, 1), stored, [TRIGGER_KEY, NEXT_KEY], it.clock)
    assert (again.epoch, again.standing(TRIGGER).signer) == (2, NEXT_KEY)


@pytest.mark.parametrize("lines", [second(3), keyset(2, *FIRST.values(), signer=TRIGGER_KEY), b"", b"a.b.c"])
async def test_what_devices_would_not_take_is_refused_and_changes_nothing(
    it: Plant, keyring: Keyring, lines: bytes
) -> None:
    with pytest.raises(TrustError):
        await take(it, keyring, lines)
    assert (keyring.epoch, await it.store.read(lambda tx: tx.keysets())) == (1, [])


async def test_another_person_must_approve(it: Plant, keyring: Keyring) -> None:
    now = it.clock()
    for name in ("bob", "cleo"):
        await it.write(lambda tx, name=name: tx.add_operator(Operator(name, name, (Role.APPROVER,), now)))
    with pytest.raises(ApprovalNeededError) as caught:
        await take(it, keyring, second())
    assert keyring.epoch == 1
    bob = Caller("bob", "bob", frozenset({Role.APPROVER}))
    number = caught.value.proposal.id
    await it.write(lambda tx: approvals.vote(tx, number, bob, "I saw it too", now, approves=True))
    with pytest.raises(ApprovalNeededError):
        await take(it, keyring, keyset(2, *FIRST.values(), public(NEXT_KEY, TRIGGER)))  # not what was approved
    with pytest.raises(ApprovalNeededError) as caught:
        await take(it, keyring, second())
    number = caught.value.proposal.id
    await it.write(lambda tx: approvals.vote(tx, number, bob, "this one", now, approves=True))
    assert (await take(it, keyring, second())).ep == 2


async def test_a_root_key_that_ends_while_its_keyset_is_stored_does_not_strand_the_daemon(it: Plant) -> None:
    ending = {**FIRST, ROOT_KEY.kid: replace(FIRST[ROOT_KEY.kid], exp=int(it.clock()) + 5)}
    it.keyring = Keyring(Keyset(DEPLOYMENT, 1, ending, 1, 1), (), [TRIGGER_KEY, NEXT_KEY], it.clock)
    it.store.breaks = lambda: it.clock.advance(10)
    assert (await take(it, it.keyring, second())).ep == 2
    assert it.keyring.standing(TRIGGER).signer is NEXT_KEY
    with pytest.raises(TrustError, match="wrong_version"):
        it.keyring.judge(second())


async def test_a_daemon_that_was_given_the_new_document_too_early_says_so(it: Plant, keyring: Keyring) -> None:
    early = Keyring(keyring.judge(second()), (), [NEXT_KEY], it.clock)
    with pytest.raises(TrustError, match=r"name the document of the keyset before it.*--accept-keyset 1`"):
        await take(it, early, second())


async def test_a_keyset_under_which_nothing_can_be_signed_is_taken_on_a_persons_word_alone(it: Plant) -> None:
    ring = it.keyring = Keyring(Keyset(DEPLOYMENT, 1, FIRST, 1, 1), (), [TRIGGER_KEY], it.clock)
    with pytest.raises(ConflictError, match=rf"configure the private key of {NEXT_KEY.kid}.*--next.*--force") as error:
        await take(it, ring, second())
    assert error.value.code == "no_trigger_key"
    silent = Wish(ADMIN.caller, " ")
    with pytest.raises(RequestError, match="needs a --reason"):
        await take_keyset(it.store, ring, second(), silent, Rules(), it.clock, force=True)
    assert (ring.epoch, await it.store.read(lambda tx: tx.keysets())) == (1, [])
    assert (await take_keyset(it.store, ring, second(), ADMIN, Rules(), it.clock, force=True)).ep == 2
    entry = (await it.store.read(lambda tx: tx.audit_entries(0, 100)))[-1]
    assert (entry.action, json.loads(entry.detail)["reason"]) == ("keyset.taken", ADMIN.reason)
    assert json.loads(entry.detail)["forced"].startswith("No trigger key at hand is good under keyset 2")


async def test_approving_a_keyset_is_not_approving_that_it_is_forced(it: Plant) -> None:
    for name in ("bob", "cleo"):
        await it.write(lambda tx, name=name: tx.add_operator(Operator(name, name, (Role.APPROVER,), it.clock())))
    mute = Keyring(Keyset(DEPLOYMENT, 1, FIRST, 1, 1), (), [TRIGGER_KEY], it.clock)
    with pytest.raises(ApprovalNeededError) as forced:
        await take_keyset(it.store, mute, second(), ADMIN, Rules(), it.clock, force=True)
    assert "under which no trigger can be signed" in forced.value.proposal.text
    able = Keyring(Keyset(DEPLOYMENT, 1, FIRST, 1, 1), (), [NEXT_KEY], it.clock)
    with pytest.raises(ApprovalNeededError) as plain:
        await take(it, able, second())
    assert plain.value.proposal.id != forced.value.proposal.id


WRITES = 10
"""Writes of a keyset that was approved, with a rollout that runs and one that is halted."""


@pytest.mark.parametrize("writes", [*range(1, WRITES + 1), None])
async def test_a_death_at_any_write_loses_nothing_and_takes_nothing_twice(
    it: Plant, keyring: Keyring, writes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = Caller("bob", "bob", frozenset({Role.APPROVER}))
    for name in ("bob", "cleo"):
        await it.write(lambda tx, name=name: tx.add_operator(Operator(name, name, (Role.APPROVER,), it.clock())))
    await it.enrol(5)
    halted = await it.running(make_plan((2, REST), name="halted"))
    await it.send()
    await it.command(halted, Command.HALT)
    running = await it.running(make_plan((REST,), name="running", release="radio-3.0.0", in_flight=2), rel=3)
    await it.seal()
    with pytest.raises(ApprovalNeededError) as caught:
        await take(it, keyring, second())
    number = caught.value.proposal.id
    await it.write(lambda tx: approvals.vote(tx, number, bob, "I saw it too", it.clock(), approves=True))
    before = await it.store.read(lambda tx: (tx.footing(), [item.action for item in tx.audit_entries(0, 99)]))
    waiting = [(item.id, item.state) for item in await it.parcels(running)]
    with monkeypatch.context() as patched:
        patched.setattr(it.store, "transact", mortal(it, writes))
        with pytest.raises(DeadError):
            await take(it, keyring, second())
    ring = await restarted(it)
    assert ring.epoch == (1 if writes else 2)
    if writes:
        after = await it.store.read(lambda tx: (tx.footing(), [item.action for item in tx.audit_entries(0, 99)]))
        assert after == before
        assert [(item.id, item.state) for item in await it.parcels(running)] == waiting
        assert (await take(it, ring, second())).ep == 2, "the approval is still there"
    with pytest.raises(TrustError, match="wrong_version"):
        await take(it, ring, second())
    actions = Counter(item.action for item in await it.store.read(lambda tx: tx.audit_entries(0, 99)))
    assert (actions["keyset.taken"], len(await it.store.read(lambda tx: tx.keysets()))) == (1, 1)
    assert await it.store.read(lambda tx: tx.footing()) == footing_of(ring.keyset)
    told = [said(token) for _, token, _ in await it.send()]
    assert {claims["act"] for claims in told if claims["ep"] == 1} == {"cancel"}, (
        "who has the old keys still follows it"
    )
    acts = Counter((claims["act"], claims["cid"]) for claims in told if claims["ep"] == 2)
    assert acts == {("install", str(running.id)): 2, ("cancel", str(halted.id)): 2}
    every = [*await it.parcels(running), *await it.parcels(halted), *await it.parcels(halted, DeliveryKind.CANCEL)]
    numbers = [item.seq for item in every if item.seq is not None]
    assert len(set(numbers)) == len(numbers)
    await it.tallies_hold(running)
