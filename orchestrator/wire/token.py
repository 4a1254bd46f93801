"""Tokens of `otad/1` from the side that makes them: JWS Compact with a closed header.

Rules:
- No cryptography here: a signer gets the bytes to sign, and its signature is joined on.
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
    if _KID.fullmatch(kid) is None:
        raise RequestError(f"not a key identifier: {kid[:80]!r}", code="bad_kid")
    try:
        payload = _ENCODER.encode(claims)
    except UnicodeEncodeError:
        raise RequestError("a name or address is not valid Unicode text", code="bad_text") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RequestError(
            f"the claims take {len(payload)} bytes, devices accept {MAX_PAYLOAD_BYTES}: shorten names or addresses",
            code="oversize",
        )
    header = f'{{"alg":"ES256","kid":"{kid}","typ":"{typ}"}}'.encode()
    return f"{encode64(header)}.{encode64(payload)}".encode()


def assemble(signed: bytes, signature: bytes) -> bytes:
    """Join a signing input and its 64-byte signature to a token."""
    if len(signature) != _SIGNATURE_BYTES:
        raise ValueError(f"a signature has {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    return signed + b"." + encode64(signature).encode()


def hash_of(token: bytes) -> str:
    """Return the token hash: base64url(SHA-256) of header and payload, without the signature."""
    return encode64(hashlib.sha256(token[: token.rfind(b".")]).digest())


def bundle(tokens: Sequence[bytes]) -> bytes:
    """Return tokens one per line: trigger, statement, then cosignatures; or one recall."""
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
