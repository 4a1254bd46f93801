"""Checkpoints as tokens: what is written is read, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.trust.audit import Checkpoint
from orchestrator.errors import PayloadError
from orchestrator.wire import checkpoint as wire
from orchestrator.wire.token import assemble, encode64

POINT = Checkpoint(64, "ab" * 32, 1_700_000_000.125, 1234)
KID = "k-1_A"
SIGNATURE = bytes(range(64))
NUMBERS = st.integers(0, 2**62 - 1)


def token(point: Checkpoint = POINT) -> bytes:
    return assemble(wire.signing_input(KID, point), SIGNATURE)


def forged(header: bytes, payload: bytes) -> bytes:
    return f"{encode64(header)}.{encode64(payload)}.{encode64(SIGNATURE)}".encode()


HEADER = b'{"alg":"ES256","kid":"k-1_A","typ":"ota-checkpoint+jws"}'
CLAIMS = b'{"v":1,"n":64,"hash":"' + b"ab" * 32 + b'","at":1.5,"seq":9}'


@given(NUMBERS, NUMBERS, st.floats(0, 1e11))
def test_what_is_written_is_read(n: int, seq: int, at: float) -> None:
    point = replace(POINT, n=n, seq=seq, at=at)
    opened = wire.read(token(point))
    assert (opened.checkpoint, opened.kid, opened.signature) == (point, KID, SIGNATURE)
    assert opened.signed == wire.signing_input(KID, point)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a.b.c",
        b"a.b." + b"c" * 86,
        b"abcde.abcd." + b"c" * 86,
        token() + b"\n",
        token() + b"A",
        token()[:-1],
        token().replace(b".", b"..", 1),
        token()[:-1] + bytes([token()[-1] + 1]),  # the last character says bits that nothing holds
        forged(b'{"alg":"none","kid":"k","typ":"ota-checkpoint+jws"}', CLAIMS),
        forged(HEADER.replace(b"checkpoint", b"trigger"), CLAIMS),
        forged(HEADER + b" ", CLAIMS),
        forged(HEADER, b"{}"),
        forged(HEADER, b"\xff"),
        forged(HEADER, CLAIMS.replace(b'"v":1', b'"v":2')),
        forged(HEADER, CLAIMS.replace(b'"n":64', b'"n":-1')),
        forged(HEADER, CLAIMS.replace(b'"seq":9', b'"seq":"9"')),
        forged(HEADER, CLAIMS.replace(b"abab", b"ABAB")),
        forged(HEADER, CLAIMS[:-1] + b',"more":1}'),
        forged(HEADER, CLAIMS[:-1] + b" " * 1000 + b"}"),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    assert wire.read(forged(HEADER, CLAIMS)).checkpoint.n == 64
    with pytest.raises(PayloadError, match="not a checkpoint"):
        wire.read(raw)


@given(st.binary() | st.text(alphabet="AZaz09-_.", max_size=300).map(str.encode))
def test_random_bytes_are_refused_and_nothing_worse(raw: bytes) -> None:
    with pytest.raises(PayloadError):
        wire.read(raw)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_random_parts_are_refused_and_nothing_worse(header: bytes, payload: bytes) -> None:
    for raw in (forged(header, CLAIMS), forged(HEADER, payload)):
        with pytest.raises(PayloadError):
            wire.read(raw)
