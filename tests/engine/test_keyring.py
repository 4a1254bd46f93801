"""The keyring: follows keysets as devices do, and signs with what they accept now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.trigger import keyset_claims
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import TrustError, UnavailableError
from orchestrator.verifier import ARTIFACT, BEAT, KEYS, TRIGGER, Keyset, load_keyset
from orchestrator.wire.token import (
    TokenType,
    assemble,
    assemble_further,
    bundle,
    encode64,
    further_input,
    signing_input,
)

NOW = 1_900_000_000


@dataclass(frozen=True)
class Key:
    signer: FileSigner
    entry: dict[str, object]


def key(typ: str, **limits: object) -> Key:
    signer = FileSigner(ec.generate_private_key(ec.SECP256R1()))
    point = {"x": encode64(signer.x), "y": encode64(signer.y)}
    return Key(signer, {"kid": signer.kid, "typ": typ, **point, **limits})


ROOTS = [key(KEYS) for _ in range(3)]
FIRST, SECOND, THIRD, BEATS, BUILD = key(TRIGGER), key(TRIGGER), key(TRIGGER), key(BEAT), key(ARTIFACT)


def claims(epoch: int, keys: Sequence[Key], roots: Sequence[Key] = ROOTS) -> dict[str, object]:
    return keyset_claims(
        deployment="my-fleet",
        epoch=epoch,
        keys=[item.entry for item in (*roots, *keys)],
        need_root=2,
        need_cosign=1,
        issued_at=NOW,
    )


def provisioned(epoch: int, *keys: Key, roots: Sequence[Key] = ROOTS) -> Keyset:
    return load_keyset(json.dumps(claims(epoch, keys, roots)).encode())


def signed(epoch: int, *keys: Key, by: Sequence[Key] = ROOTS[:2], roots: Sequence[Key] = ROOTS) -> bytes:
    first = signing_input(TokenType.KEYS, by[0].signer.kid, claims(epoch, keys, roots))
    lines = [assemble(first, by[0].signer.sign(first))]
    for other in by[1:]:
        data = further_input(TokenType.KEYS, other.signer.kid, lines[0])
        lines.append(assemble_further(data, other.signer.sign(data)))
    return bundle(lines)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def ring(held: Keyset, stored: Sequence[tuple[int, bytes]] = (), *keys: Key, clock: Clock | None = None) -> Keyring:
    return Keyring(held, stored, [item.signer for item in keys], clock or Clock())


def test_the_document_alone() -> None:
    ours = ring(provisioned(3, FIRST, BEATS), (), FIRST)
    assert (ours.epoch, ours.keyset.iss) == (3, "my-fleet")
    assert ours.key(FIRST.signer.kid) == ours.keyset.keys[FIRST.signer.kid]
    assert ours.key(SECOND.signer.kid) is None
    assert (ours.standing(TRIGGER).epoch, ours.standing(TRIGGER).signer) == (3, FIRST.signer)


def test_stored_keysets_are_followed_in_order() -> None:
    stored = [(3, signed(3, THIRD)), (2, signed(2, SECOND))]
    ours = ring(provisioned(1, FIRST), stored, FIRST, SECOND, THIRD)
    assert (ours.epoch, ours.standing(TRIGGER).signer) == (3, THIRD.signer)


def test_keysets_up_to_the_document_are_left_out() -> None:
    stored = [(2, b"not even a keyset"), (3, b"nor this"), (4, signed(4, THIRD))]
    assert ring(provisioned(3, SECOND), stored).epoch == 4


def test_a_gap_is_said() -> None:
    with pytest.raises(TrustError, match="keyset 2 is missing, 3 is stored") as error:
        ring(provisioned(1, FIRST), [(3, signed(3, THIRD))])
    assert error.value.code == "keyset_missing"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (signed(2, SECOND, by=ROOTS[:1]), "too_few_signers"),
        (signed(2, SECOND, by=[ROOTS[0], ROOTS[0]]), "signed_twice"),
        (signed(3, SECOND), "wrong_version"),
        (b"hello", "not_a_token"),
    ],
    ids=["too few", "twice", "skipped", "words"],
)
def test_what_devices_would_not_take_is_not_believed(lines: bytes, code: str) -> None:
    with pytest.raises(TrustError, match="the keyset after 1 is not one that devices take") as error:
        ring(provisioned(1, FIRST), [(2, lines)])
    assert error.value.code == code
    ours = ring(provisioned(1, FIRST), (), FIRST)
    with pytest.raises(TrustError):
        ours.take(lines)
    assert (ours.epoch, ours.standing(TRIGGER).signer) == (1, FIRST.signer)


def test_a_new_keyset_changes_who_signs_at_once() -> None:
    ours = ring(provisioned(1, FIRST), (), FIRST, SECOND)
    lines = signed(2, SECOND)
    assert ours.judge(lines).ep == 2
    assert ours.standing(TRIGGER).signer is FIRST.signer
    assert ours.take(lines) == ours.keyset
    assert (ours.epoch, ours.standing(TRIGGER).signer) == (2, SECOND.signer)
    with pytest.raises(TrustError):
        ours.take(lines)


def test_roots_that_have_expired_count_for_what_was_taken_and_not_for_the_new() -> None:
    roots = [key(KEYS, exp=NOW) for _ in range(2)]
    lines = signed(2, SECOND, by=roots, roots=roots)
    held = provisioned(1, FIRST, roots=roots)
    assert ring(held, [(2, lines)]).epoch == 2
    with pytest.raises(TrustError, match="key_expired"):
        ring(held).judge(lines)


def test_the_first_that_fits_signs_and_its_successor_goes_on() -> None:
    old, new, clock = key(TRIGGER, exp=NOW + 10), key(TRIGGER, nbf=NOW + 5), Clock()
    ours = ring(provisioned(1, old, new), (), old, new, clock=clock)
    assert ours.standing(TRIGGER).signer is old.signer
    clock.now = NOW + 9.9
    assert ours.standing(TRIGGER).signer is old.signer
    clock.now = NOW + 10
    assert ours.standing(TRIGGER).signer is new.signer
    assert ours.faults(TRIGGER) == []


def test_every_key_that_does_not_fit_is_explained() -> None:
    late, early = key(TRIGGER, exp=NOW), key(TRIGGER, nbf=NOW + 1)
    ours = ring(provisioned(2, late, early, BUILD), (), late, early, BUILD, FIRST)
    wanted = f"{late.signer.kid} or {early.signer.kid}"
    assert ours.faults(TRIGGER) == [
        f"No trigger key at hand is good under keyset 2: configure the private key of {wanted}.",
        f"Key {late.signer.kid} has expired at {NOW}, and now it is {NOW}.",
        f"Key {early.signer.kid} signs from {NOW + 1} on, and now it is {NOW}.",
        f"Key {BUILD.signer.kid} is of another role: artifact.",
        f"Key {FIRST.signer.kid} is not in it.",
    ]
    with pytest.raises(UnavailableError, match="No trigger key at hand") as error:
        ours.standing(TRIGGER)
    assert error.value.code == "no_signer"
    assert "No beat key at hand is good under keyset 2: `ota keys rotate` makes one." in ours.faults(BEAT)


def test_keys_that_end_are_named_with_their_end() -> None:
    ending = key("ota-cosign+jws", who="anna", exp=NOW + 9)
    gone = key(BEAT, exp=NOW - 9)
    ours = ring(provisioned(1, FIRST, ending, gone))
    assert ours.expiries() == [
        (f"cosigner key {ending.signer.kid} of anna", NOW + 9),
        (f"beat key {gone.signer.kid}", NOW - 9),
    ]
