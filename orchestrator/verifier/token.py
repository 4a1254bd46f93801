"""Tokens: the envelope, and signatures over it.

Rules:
- The header is compared, not parsed; it selects a key, and the key says which one type it signs.
- Signatures are checked before the payload is looked at.
- Several signatures over one payload are several lines; every one of them must hold.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from orchestrator.verifier.fields import ARTIFACT, KEYS, decode64, read_claims
from orchestrator.verifier.reasons import Refused, require

MAX_TOKEN_BYTES, MAX_PAYLOAD_BYTES = 2048, 1200
MAX_KEYSET_TOKEN_BYTES, MAX_KEYSET_BYTES = 6144, 4096
MAX_LINES = 8  # of a token with several signatures

_CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{1,64})","typ":"(ota-[a-z]{4,8}\+jws)"\}')


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A P-256 key and the one type of token it may sign; `x` and `y` are 32 bytes, big-endian."""

    kid: str
    typ: str
    x: bytes
    y: bytes
    nbf: int = 0  # epoch seconds before which it signs nothing
    exp: int | None = None  # epoch seconds from which on it signs nothing more, None for no end
    who: str = ""  # the person that holds a cosigner key
    hw: tuple[str, ...] = ()  # hardware models that an artifact key signs for, none for all


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a token: the parts as they came, and what the header says."""

    typ: str
    kid: str
    header: bytes
    payload: bytes  # of the first line, in every line
    signature: bytes


def open_token(token: bytes, typ: str, keys: Mapping[str, PublicKey], now: int | None = None) -> dict[str, Any]:
    """Check envelope, signature and fields of a token with one signature; return its claims or raise `Refused`."""
    line = read_line(token, typ)
    key = check_line(line, keys, now)
    claims = read_claims(decode64(line.payload), typ)
    if typ == ARTIFACT and key.hw:
        require("key_scope", set(claims["hw"]) <= set(key.hw), " ".join(claims["hw"]))
    return claims


def read_line(token: bytes, typ: str) -> Line:
    """Take a line apart; raises `Refused` if it is not of type `typ`."""
    longest = MAX_KEYSET_TOKEN_BYTES if typ == KEYS else MAX_TOKEN_BYTES
    require("too_long", len(token) <= longest, f"{len(token)} bytes")
    parts = token.split(b".")
    require("not_a_token", len(parts) == 3, f"{len(parts)} parts")
    header = _HEADER.fullmatch(decode64(parts[0]))
    if header is None:
        raise Refused("bad_header", ascii(parts[0][:80]))
    found = header[2].decode()
    require("wrong_type", found == typ, found)
    return Line(typ, header[1].decode(), *parts)


def read_lines(tokens: Sequence[bytes], typ: str) -> list[Line]:
    """Take a token with several signatures apart; raises `Refused` if lines do not belong together."""
    require("too_many_lines", len(tokens) <= MAX_LINES, f"{len(tokens)} lines")
    lines = [read_line(token, typ) for token in tokens]
    for line in lines[1:]:
        require("not_detached", line.payload == b"", line.kid)
    require("signed_twice", len({line.kid for line in lines}) == len(lines), "a key identifier is there twice")
    return [replace(line, payload=lines[0].payload) for line in lines]


def check_line(line: Line, keys: Mapping[str, PublicKey], now: int | None) -> PublicKey:
    """Check the signature of a line at `now`; return the key that made it or raise `Refused`."""
    key = keys.get(line.kid)
    if key is None:
        raise Refused("unknown_key", line.kid)
    require("wrong_role", key.typ == line.typ, line.kid)
    require("key_not_yet", now is None or now >= key.nbf, f"from {key.nbf} on, now {now}")
    require("key_expired", now is None or key.exp is None or now < key.exp, f"at {key.exp}, now {now}")
    size, longest = len(decode64(line.payload)), MAX_KEYSET_BYTES if line.typ == KEYS else MAX_PAYLOAD_BYTES
    require("too_long", size <= longest, f"{size} bytes of payload")
    _check_signature(key, line.header + b"." + line.payload, decode64(line.signature))
    return key


def token_hash(token: bytes) -> str:
    """Return base64url(SHA-256) of header and payload: signatures are not unique, these are."""
    return base64.urlsafe_b64encode(hashlib.sha256(token[: token.rfind(b".")]).digest()).rstrip(b"=").decode()


def point(key: PublicKey) -> ec.EllipticCurvePublicKey:
    """Return the key as one that verifies; raises `Refused` if it is not on the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.x + key.y)
    except ValueError:
        raise Refused("bad_keys", f"key {key.kid} is not on the curve") from None


def _check_signature(key: PublicKey, signed: bytes, signature: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    in_range = len(signature) == 64 and 0 < r < _CURVE_ORDER and 0 < s < _CURVE_ORDER
    require("bad_signature", in_range, "not 64 bytes of r and s")
    require("high_s", s <= _CURVE_ORDER // 2, "the low one is n - s")
    try:
        point(key).verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("bad_signature", f"key {key.kid}") from None
