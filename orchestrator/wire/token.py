"""Tokens of `otad/1` from the side that makes them: JWS Compact with a closed header.

Rules:
- No cryptography here: a signer gets the bytes to sign, and its signature is joined on.
- Further signatures over the same payload are further lines, whose own payload part is empty.
- The header is exactly `{"alg":"ES256","kid":"<kid>","typ":"<typ>"}`; the claims keep the order they are given in.
- What devices would refuse for its size is refused here first.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from orchestrator.errors import RequestError

MAX_PAYLOAD_BYTES = 1200  # with the longest header this makes 1,839 bytes; devices accept tokens of 2,048
MAX_KEYSET_BYTES = 4096  # with the longest header 5,696 bytes; devices accept keysets of 6,144
_SIGNATURE_BYTES = 64
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ENCODER = msgspec.json.Encoder()


class TokenType(StrEnum):
    """What a token is; the signed header says it, and a key may sign one type only."""

    TRIGGER = "ota-trigger+jws"
    ARTIFACT = "ota-artifact+jws"
    COSIGN = "ota-cosign+jws"
    BEAT = "ota-beat+jws"
    KEYS = "ota-keys+jws"


def signing_input(typ: TokenType, kid: str, claims: Mapping[str, object]) -> bytes:
    """Return the bytes to sign: `<header>.<payload>`, both in base64url.

    Raises:
        RequestError: the key identifier or a text is malformed, or devices would refuse the token as too long.
    """
    header = _header(typ, kid)
    try:
        payload = _ENCODER.encode(claims)
    except UnicodeEncodeError:
        raise RequestError("a name or address is not valid Unicode text", code="bad_text") from None
    longest = MAX_KEYSET_BYTES if typ is TokenType.KEYS else MAX_PAYLOAD_BYTES
    if len(payload) > longest:
        raise RequestError(
            f"the claims take {len(payload)} bytes, devices accept {longest}: shorten names or addresses",
            code="oversize",
        )
    return f"{header}.{encode64(payload)}".encode()


def further_input(typ: TokenType, kid: str, first: bytes) -> bytes:
    """Return the bytes that another key signs to put a further line behind a token.

    Args:
        typ: type of the token.
        kid: identifier of the other key.
        first: first line of the token, or its signing input.

    Raises:
        RequestError: the key identifier is malformed.
    """
    return f"{_header(typ, kid)}.".encode() + first.split(b".")[1]


def assemble_further(signed: bytes, signature: bytes) -> bytes:
    """Join the input of a further line and its 64-byte signature: `<header>..<signature>`, the payload left out."""
    header, _, _ = signed.partition(b".")
    return assemble(header + b".", signature)


def assemble(signed: bytes, signature: bytes) -> bytes:
    """Join a signing input and its 64-byte signature to a token."""
    if len(signature) != _SIGNATURE_BYTES:
        raise ValueError(f"a signature has {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    return signed + b"." + encode64(signature).encode()


def hash_of(token: bytes) -> str:
    """Return the token hash: base64url(SHA-256) of header and payload, without the signature."""
    return encode64(hashlib.sha256(token[: token.rfind(b".")]).digest())


def bundle(tokens: Sequence[bytes]) -> bytes:
    """Return lines one below the other: trigger, statement, warrant; or one recall; or the lines of one token."""
    return b"\n".join(tokens)


def key_id(x: bytes, y: bytes) -> str:
    """Return the identifier of a P-256 key: 16 characters of the hash of its uncompressed point.

    Args:
        x: 32 bytes, big-endian.
        y: 32 bytes, big-endian.
    """
    return encode64(hashlib.sha256(b"\x04" + x + y).digest())[:16]


def encode64(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _header(typ: TokenType, kid: str) -> str:
    if _KID.fullmatch(kid) is None:
        raise RequestError(f"not a key identifier: {kid[:80]!r}", code="bad_kid")
    return encode64(f'{{"alg":"ES256","kid":"{kid}","typ":"{typ}"}}'.encode())
