"""Bundles: mutants of good ones, random bytes and fields, addresses, and what a verdict carries."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.verifier import REASONS, Refused, check_url, take_beat, take_keyset, verify
from tests.golden import kit, ours

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
GOOD = kit.bundle()
DEVICE = ours.read_device(kit.DEVICE)
SECURED = ours.read_device(kit.SECURED)

Taker = Callable[[bytes], object]


def take_bundle(data: bytes) -> object:
    return verify(data, SECURED, kit.NOW)


TOKENS = [
    pytest.param(GOOD, take_bundle, id="trigger"),
    pytest.param(kit.recalled(), take_bundle, id="recall"),
    pytest.param(kit.emergency(), take_bundle, id="warrant"),
    pytest.param(kit.beat_key.token(kit.beat()), lambda data: take_beat(data, SECURED, kit.NOW), id="beat"),
    pytest.param(
        kit.several(kit.roots[1:3], kit.keyset()), lambda data: take_keyset(data, SECURED, kit.NOW), id="keyset"
    ),
]


def test_a_refusal_carries_claims_only_when_it_is_ours() -> None:
    with pytest.raises(Refused) as ours:
        verify(kit.bundle({"seq": 100}), DEVICE, kit.NOW)
    assert (ours.value.claims["att"], ours.value.claims["seq"]) == ("7.1", 100)
    assert str(ours.value) == "stale_seq: 100 is not above 100"
    for foreign in (kit.bundle({"aud": ["d:other"]}), GOOD.replace(b"\n", b"A\n"), b"x"):
        with pytest.raises(Refused) as refusal:
            verify(foreign, DEVICE, kit.NOW)
        assert refusal.value.claims == {}


def test_the_verdict_carries_claims_and_statement() -> None:
    verdict = verify(GOOD, DEVICE, kit.NOW)
    assert verdict.claims["url"] == [kit.URL]
    assert verdict.statement == kit.statement()
    assert verify(kit.recalled(), DEVICE, kit.NOW).statement is None


def substitutions(token: bytes, place: int) -> set[bytes]:
    old = token[place : place + 1]
    neighbour = BASE64[(BASE64.find(old) + 1) % 64 :][:1]
    return {old.swapcase(), neighbour, b".", b"\xff", b"\n", b"A", bytes([old[0] ^ 1])} - {old}


@pytest.mark.parametrize(("good", "take"), TOKENS)
def test_no_single_byte_mutant_is_accepted(good: bytes, take: Taker) -> None:
    take(good)
    tried = 0
    for place in range(len(good)):
        for new in substitutions(good, place):
            with pytest.raises(Refused):
                take(good[:place] + new + good[place + 1 :])
            tried += 1
    assert tried >= 4 * len(good)


@pytest.mark.parametrize(("good", "take"), TOKENS)
def test_no_truncation_extension_or_deletion_is_accepted(good: bytes, take: Taker) -> None:
    take(good)
    truncated = [good[:end] for end in range(len(good))]
    shortened = [good[:place] + good[place + 1 :] for place in range(len(good))]
    extended = [good + bytes([byte]) for byte in range(256)] + [bytes([byte]) + good for byte in range(256)]
    for mutant in (*truncated, *shortened, *extended):
        with pytest.raises(Refused):
            take(mutant)


@given(st.binary(max_size=3000), st.none() | st.integers(0, 2**53))
@example(b"", None)
def test_random_bytes_are_refused(data: bytes, now: int | None) -> None:
    with pytest.raises(Refused) as refusal:
        verify(data, DEVICE, now)
    assert refusal.value.code in REASONS


@given(st.binary(max_size=1300))
def test_random_payloads_under_a_good_signature_are_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        verify(kit.trigger_key.token(payload) + b"\n" + GOOD, DEVICE, kit.NOW)
    assert refusal.value.code in REASONS


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(kit.offer())), VALUES)
def test_a_random_field_is_accepted_or_refused_and_never_crashes(name: str, value: object) -> None:
    line = kit.artifact_key.token(kit.statement())
    claims = kit.offer({"ast": kit.token_hash(line)}) | {name: value}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    try:
        verdict = verify(kit.trigger_key.token(payload) + b"\n" + line, DEVICE, kit.NOW)
    except Refused as refusal:
        assert refusal.code in REASONS
    else:
        assert verdict.claims == claims


@settings(max_examples=300)
@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z0-9.:@\[\]\\/?#-]{0,40}", fullmatch=True))
def test_a_random_url_is_refused(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_url(url, DEVICE)
    assert refusal.value.code.startswith("url_")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='#"<>\\^`{|}'), max_size=60))
def test_any_path_of_an_allowed_origin_is_accepted(path: str) -> None:
    check_url(f"{kit.ORIGIN}/{path}", DEVICE)


def test_a_url_has_a_longest_length() -> None:
    check_url(kit.ORIGIN + "/" + "a" * (4095 - len(kit.ORIGIN)), DEVICE)
    with pytest.raises(Refused, match="url_malformed"):
        check_url(kit.ORIGIN + "/" + "a" * (4096 - len(kit.ORIGIN)), DEVICE)
