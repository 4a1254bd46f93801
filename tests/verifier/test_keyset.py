"""Keysets and beats: what is read, what is taken over, and that nothing else is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.verifier import (
    ARTIFACT,
    COSIGN,
    REASONS,
    TRIGGER,
    Keyset,
    PublicKey,
    Refused,
    adopt,
    load_keys,
    load_keyset,
    open_token,
    take_beat,
    take_keyset,
    verify,
)
from tests.golden import kit, ours

DEVICE = ours.read_device(kit.SECURED)
HELD = Keyset(DEVICE.iss, DEVICE.ep, dict(DEVICE.keys), 2, 2)
ROTATION = kit.several(kit.roots[1:3], kit.keyset())
BEAT = kit.beat_key.token(kit.beat())


def document(**changes: Any) -> bytes:
    keys = [kit.trigger_key.public, kit.artifact_key.public]
    return json.dumps({"v": 1, "iss": "test-fleet", "ep": 3, "keys": keys} | changes).encode()


def code_of(refusal: pytest.ExceptionInfo[Refused]) -> str:
    return refusal.value.code


def test_an_old_document_is_read() -> None:
    keyset = load_keyset(document())
    assert (keyset.iss, keyset.ep, list(keyset.keys)) == ("test-fleet", 3, ["trigger-1", "artifact-1"])
    assert (keyset.need_root, keyset.need_cosign) == (0, 0)
    assert keyset.keys["trigger-1"] == PublicKey("trigger-1", TRIGGER, kit.trigger_key.x, kit.trigger_key.y)
    assert load_keys(document()) == keyset.keys


def test_a_document_with_everything_is_read() -> None:
    artifact = kit.artifact_key.public | {"hw": ["esp32", "esp32-c3"], "nbf": 5, "exp": 9}
    keys = [artifact, kit.ann.public, kit.root_key.public]
    keyset = load_keyset(document(keys=keys, need={"root": 1, "cosign": 1}, iat=7, exp=9))
    assert keyset.keys["artifact-1"] == PublicKey(
        "artifact-1", ARTIFACT, kit.artifact_key.x, kit.artifact_key.y, 5, 9, "", ("esp32", "esp32-c3")
    )
    assert (keyset.keys["cosign-1"].typ, keyset.keys["cosign-1"].who) == (COSIGN, "ann")
    assert (keyset.need_root, keyset.need_cosign) == (1, 1)


@settings(max_examples=200)
@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_random_documents_are_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        load_keyset(data)
    assert code_of(refusal) in REASONS


def test_a_rotation_replaces_everything() -> None:
    taken = adopt(ROTATION, HELD, kit.NOW)
    expected = load_keyset(json.dumps(kit.keyset()).encode())
    assert taken == expected
    assert (taken.ep, taken.need_root, taken.need_cosign) == (4, 2, 2)
    assert "root-1" not in taken.keys


def test_after_a_rotation_old_tokens_are_refused_and_new_ones_begin_at_one() -> None:
    used = dataclasses.replace(DEVICE, floor=500, beat_iat=kit.NOW)
    after = take_keyset(ROTATION, used, kit.NOW)
    assert (after.floor, after.beat_iat, after.id, after.model) == (0, 0, DEVICE.id, DEVICE.model)
    assert [part.seq for part in after.components.values()] == [0, 0]
    assert [part.rel for part in after.components.values()] == [4, 2]
    with pytest.raises(Refused) as refusal:
        verify(kit.bundle(), after, kit.NOW)
    assert code_of(refusal) == "wrong_epoch"
    assert verify(kit.bundle({"ep": 4, "seq": 1}), after, kit.NOW).kind == "install"


def test_rotations_follow_one_another() -> None:
    second = kit.keyset({"ep": 5, "keys": [key.public for key in (kit.trigger_key, *kit.roots[3:5])]})
    pair = kit.several(kit.roots[2:5], second)
    with pytest.raises(Refused) as refusal:
        adopt(pair, HELD, kit.NOW)
    assert code_of(refusal) == "too_few_signers"
    assert adopt(pair, adopt(ROTATION, HELD, kit.NOW), kit.NOW).ep == 5


def test_what_is_not_vouched_for_is_not_parsed() -> None:
    bomb = b'{"v":' + b"[" * 3000
    with pytest.raises(Refused) as refusal:
        adopt(kit.several(kit.roots[3:5], bomb), HELD, kit.NOW)
    assert code_of(refusal) == "too_few_signers"
    with pytest.raises(Refused) as vouched:
        adopt(kit.several(kit.roots[1:3], bomb), HELD, kit.NOW)
    assert code_of(vouched) in ("bad_json", "too_deep")


@given(st.binary(max_size=300))
def test_random_payloads_under_good_root_signatures_are_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        adopt(kit.several(kit.roots[1:3], payload), HELD, kit.NOW)
    assert code_of(refusal) in REASONS


@settings(max_examples=200)
@given(st.lists(st.sampled_from(range(8)), min_size=1, max_size=8, unique=True))
def test_a_keyset_is_taken_exactly_if_both_thresholds_are_met(signers: list[int]) -> None:
    known, old, new = {0, 1, 2, 3}, {0, 1, 2}, {1, 2, 3}
    lines = kit.several([kit.roots[number] for number in signers], kit.keyset())
    good = set(signers) <= known and len(set(signers) & old) >= 2 and len(set(signers) & new) >= 2
    try:
        taken = adopt(lines, HELD, kit.NOW)
    except Refused as refusal:
        assert not good
        assert refusal.code in ("too_few_signers", "unknown_key")
    else:
        assert good
        assert taken.ep == 4


def test_a_beat_raises_the_floor() -> None:
    after = take_beat(BEAT, DEVICE, kit.NOW)
    assert after == dataclasses.replace(DEVICE, floor=90, beat_iat=kit.NOW - 60)
    older = kit.beat_key.token(kit.beat({"iat": kit.NOW - 61, "floor": 99}))
    assert take_beat(older, after, kit.NOW) is after


def test_a_statement_opens_alone_and_within_the_scope_of_its_key() -> None:
    line = kit.artifact_key.token(kit.statement())
    assert open_token(line, ARTIFACT, DEVICE.keys) == kit.statement()
    scoped = dataclasses.replace(DEVICE.keys["artifact-1"], hw=("esp32",))
    with pytest.raises(Refused) as refusal:
        open_token(line, ARTIFACT, {"artifact-1": scoped})
    assert code_of(refusal) == "key_scope"


def test_a_key_off_the_curve_verifies_nothing() -> None:
    broken = PublicKey("trigger-1", TRIGGER, bytes(31) + b"\x01", bytes(31) + b"\x01")
    with pytest.raises(Refused) as refusal:
        verify(kit.bundle(), dataclasses.replace(DEVICE, keys={"trigger-1": broken}), kit.NOW)
    assert code_of(refusal) == "bad_keys"
