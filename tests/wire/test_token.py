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
from orchestrator.wire.token import (
    TokenType,
    assemble,
    assemble_further,
    bundle,
    encode64,
    further_input,
    hash_of,
    key_id,
    signing_input,
)
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


def test_further_lines_are_those_of_the_vectors() -> None:
    claims = kit.warrant()
    first = signing_input(TokenType.COSIGN, "cosign-1", claims)
    line = assemble(first, kit.ann.sign(first))
    for start in (first, line):
        further = further_input(TokenType.COSIGN, "cosign-2", start)
        lines = [line, assemble_further(further, kit.bob.sign(further))]
        assert bundle(lines) == kit.several((kit.ann, kit.bob), claims)


def test_a_further_line_leaves_the_payload_out_but_signs_it() -> None:
    further = further_input(TokenType.KEYS, "k", b"aaaa.bbbb")
    header = encode64(b'{"alg":"ES256","kid":"k","typ":"ota-keys+jws"}').encode()
    assert further == header + b".bbbb"
    assert assemble_further(further, bytes(64)) == header + b".." + b"A" * 86


def test_a_further_line_is_checked_like_the_first() -> None:
    with pytest.raises(RequestError, match="not a key identifier"):
        further_input(TokenType.KEYS, "../k", b"aaaa.bbbb")
    with pytest.raises(ValueError, match="64 bytes, not 63"):
        assemble_further(b"aaaa.bbbb", bytes(63))


def test_the_largest_keyset_fits_and_one_byte_more_does_not() -> None:
    filler = "x" * (4096 - len('{"m":""}'))
    longest = assemble(signing_input(TokenType.KEYS, "k" * 64, {"m": filler}), bytes(64))
    assert len(longest) == 5696 <= verifier.MAX_KEYSET_TOKEN_BYTES
    with pytest.raises(RequestError, match="4097 bytes, devices accept 4096"):
        signing_input(TokenType.KEYS, "k", {"m": filler + "x"})


def test_whatever_several_sign_fits_the_broker() -> None:
    def lines(typ: TokenType, payload_bytes: int, signers: int) -> list[bytes]:
        first = assemble(signing_input(typ, "k" * 64, {"m": "x" * (payload_bytes - 8)}), bytes(64))
        further = assemble_further(further_input(typ, "k" * 64, first), bytes(64))
        return [first] + [further] * (signers - 1)

    single = lines(TokenType.TRIGGER, 1200, 1) + lines(TokenType.ARTIFACT, 1200, 1)
    assert len(bundle(single + lines(TokenType.COSIGN, 1200, 8))) == 7174
    assert len(bundle(lines(TokenType.KEYS, 4096, 8))) == 7341


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
    assert token.MAX_KEYSET_BYTES == verifier.MAX_KEYSET_BYTES
    types = {verifier.TRIGGER, verifier.ARTIFACT, verifier.COSIGN, verifier.BEAT, verifier.KEYS}
    assert {typ.value for typ in TokenType} == types


def test_making_tokens_needs_no_cryptography() -> None:
    code = "import sys, orchestrator.wire.token; sys.exit('cryptography' in sys.modules)"
    assert run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
