"""Making tokens: exact bytes, the limits of devices, and agreement with the verifier."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from subprocess import run

import pytest

from orchestrator import verifier
from orchestrator.errors import RequestError
from orchestrator.wire import token
from orchestrator.wire.token import TokenType, assemble, bundle, encode64, hash_of, key_id, signing_input
from tests.golden import kit


def test_the_bytes_are_those_of_the_vectors() -> None:
    claims = kit.offer()
    signed = signing_input(TokenType.TRIGGER, "trigger-1", claims)
    assert assemble(signed, kit.trigger_key.sign(signed)) == kit.trigger_key.token(claims)


def test_header_and_payload_are_compact_and_keep_their_order() -> None:
    signed = signing_input(TokenType.BEAT, "k_1-A", {"b": "\u00fc", "a": [1]})
    assert signed == b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImtfMS1BIiwidHlwIjoib3RhLWJlYXQrandzIn0.eyJiIjoiw7wiLCJhIjpbMV19"


def test_the_hash_covers_header_and_payload_only() -> None:
    expected = encode64(hashlib.sha256(b"aa.bb").digest())
    assert hash_of(b"aa.bb.cc") == hash_of(b"aa.bb.dd") == expected == verifier.token_hash(b"aa.bb.cc")


def test_a_bundle_is_one_token_per_line() -> None:
    assert bundle([b"a.b.c", b"d.e.f"]) == b"a.b.c\nd.e.f"
    assert bundle([b"a.b.c"]) == b"a.b.c"


def test_the_largest_payload_fits_and_one_byte_more_does_not() -> None:
    filler = "x" * (1200 - len('{"m":""}'))
    assert signing_input(TokenType.TRIGGER, "t", {"m": filler})
    with pytest.raises(RequestError, match="1201 bytes, devices accept 1200") as error:
        signing_input(TokenType.TRIGGER, "t", {"m": filler + "x"})
    assert error.value.code == "oversize"


def test_the_longest_header_and_payload_stay_within_a_token() -> None:
    filler = "x" * (1200 - len('{"m":""}'))
    longest = assemble(signing_input(TokenType.ARTIFACT, "k" * 64, {"m": filler}), bytes(64))
    assert len(longest) == 1839 <= verifier.MAX_TOKEN_BYTES


@pytest.mark.parametrize("kid", ["", "a b", 'a"', "k" * 65, "../k"])
def test_a_malformed_key_identifier_is_refused(kid: str) -> None:
    with pytest.raises(RequestError, match="not a key identifier") as error:
        signing_input(TokenType.TRIGGER, kid, {})
    assert error.value.code == "bad_kid"


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(RequestError, match="not valid Unicode") as error:
        signing_input(TokenType.TRIGGER, "t", {"m": "\ud800"})
    assert error.value.code == "bad_text"


def test_a_signature_has_64_bytes() -> None:
    with pytest.raises(ValueError, match="64 bytes, not 71"):
        assemble(b"a.b", bytes(71))


def test_a_key_identifier_comes_from_the_point() -> None:
    expected = encode64(hashlib.sha256(b"\x04" + kit.trigger_key.x + kit.trigger_key.y).digest())[:16]
    assert key_id(kit.trigger_key.x, kit.trigger_key.y) == expected


def test_limits_and_types_are_those_of_the_verifier() -> None:
    assert token.MAX_PAYLOAD_BYTES == verifier.MAX_PAYLOAD_BYTES
    assert (TokenType.TRIGGER, TokenType.ARTIFACT) == (verifier.TRIGGER, verifier.ARTIFACT)


def test_making_tokens_needs_no_cryptography() -> None:
    code = "import sys, orchestrator.wire.token; sys.exit('cryptography' in sys.modules)"
    assert run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
