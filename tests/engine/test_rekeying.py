"""A new keyset while rollouts run: nothing signed before goes out, and everybody is offered what they still lack."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.signers import FileSigner
from orchestrator.core.approval import ApprovalNeededError
from orchestrator.core.roles import Caller, Role
from orchestrator.core.rollout import Command
from orchestrator.core.trigger import keyset_claims
from orchestrator.engine import approvals
from orchestrator.engine.approvals import Rules, Wish
from orchestrator.engine.keyring import Keyring
from orchestrator.engine.rekeying import take_keyset
from orchestrator.errors import TrustError
from orchestrator.ports import DeliveryKind, DeliveryState
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
