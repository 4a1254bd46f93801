"""The envelope of `otad/1`: from bytes that anybody may have sent to claims that a known key has signed.

Rules:
- The header has one fixed form and is matched, never parsed; the payload is parsed after the signature holds.
- Straight-line code with fixed limits, so that a port to C or MicroPython is a translation.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from orchestrator.verifier.claims import KEYSET, MAX_INTEGER, check_claims, check_fields
from orchestrator.verifier.reasons import Refused

MAX_TOKEN_BYTES = 2048
MAX_PAYLOAD_BYTES = 1200
MAX_KEYS_BYTES = 8192
MAX_DEPTH = 4

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{1,64})","typ":"(ota-[a-z]{4,8}\+jws)"\}')
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A P-256 key and the one type of token it may sign; `x` and `y` are 32 bytes, big-endian."""

    kid: str
    typ: str
    x: bytes
    y: bytes


@dataclass(frozen=True, slots=True)
class Keyset:
    """What the document of public keys provisions: deployment, key epoch, keys by `kid`."""

    iss: str
    ep: int
    keys: dict[str, PublicKey]


def open_token(token: bytes, typ: str, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """Check envelope and signature of a trigger or artifact statement, then its fields.

    Args:
        token: JWS Compact token.
        typ: `TRIGGER` or `ARTIFACT`.
        keys: public keys by `kid`.

    Returns:
        The claims; every field that the protocol names has its type and range.

    Raises:
        Refused: the token is not authentic, or not what the protocol says.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Refused("too_long", f"{len(token)} bytes")
    parts = token.split(b".")
    if len(parts) != 3:
        raise Refused("not_a_token", f"{len(parts)} parts")
    key = _find_key(_decode64(parts[0]), typ, keys)
    payload = _decode64(parts[1])
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Refused("too_long", f"{len(payload)} bytes of payload")
    _check_signature(key, parts[0] + b"." + parts[1], _decode64(parts[2]))
    claims = _parse(payload)
    check_claims(claims, typ)
    return claims


def token_hash(token: bytes) -> str:
    """Return base64url(SHA-256) of header and payload: signatures are not unique, these are."""
    return _encode64(hashlib.sha256(token[: token.rfind(b".")]).digest()).decode()


def load_keyset(document: bytes) -> Keyset:
    """Read the document of public keys that devices are provisioned with.

    Raises:
        Refused: the document is not valid.
    """
    if len(document) > MAX_KEYS_BYTES:
        raise Refused("bad_keys", f"{len(document)} bytes")
    claims = _parse(document)
    check_fields(claims, KEYSET)
    keys: dict[str, PublicKey] = {}
    for entry in claims["keys"]:
        x, y = _decode64(entry["x"].encode()), _decode64(entry["y"].encode())
        if entry["kid"] in keys or any(x == key.x for key in keys.values()):
            raise Refused("bad_keys", f"key {entry['kid']} is there twice")
        keys[entry["kid"]] = PublicKey(entry["kid"], entry["typ"], x, y)
        _point(keys[entry["kid"]])
    return Keyset(claims["iss"], claims["ep"], keys)


def load_keys(document: bytes) -> dict[str, PublicKey]:
    """Return the keys of `load_keyset` by `kid`."""
    return load_keyset(document).keys


def _find_key(header: bytes, typ: str, keys: Mapping[str, PublicKey]) -> PublicKey:
    match = _HEADER.fullmatch(header)
    if match is None:
        raise Refused("bad_header", ascii(header[:80]))
    kid, found = match[1].decode(), match[2].decode()
    if found != typ:
        raise Refused("wrong_type", found)
    if kid not in keys:
        raise Refused("unknown_key", kid)
    if keys[kid].typ != typ:
        raise Refused("wrong_role", kid)
    return keys[kid]


def _check_signature(key: PublicKey, signed: bytes, signature: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < _ORDER and 0 < s < _ORDER):
        raise Refused("bad_signature", "not 64 bytes of r and s")
    if s > _ORDER // 2:
        raise Refused("high_s", "the low one is n - s")
    try:
        _point(key).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("bad_signature", f"key {key.kid}") from None


def _point(key: PublicKey) -> ec.EllipticCurvePublicKey:
    x, y = int.from_bytes(key.x, "big"), int.from_bytes(key.y, "big")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise Refused("bad_keys", f"key {key.kid} is not on the curve") from None


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            payload.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_integer,
            parse_constant=_integer,
        )
    except ValueError as error:
        raise Refused("bad_json", str(error)) from None
    except RecursionError:
        raise Refused("too_deep", "far too deep") from None
    if not isinstance(value, dict):
        raise Refused("bad_json", "not an object")
    _check_strict(value, 1)
    return value


def _check_strict(value: object, depth: int) -> None:
    if value is None or (isinstance(value, str) and _FORBIDDEN.search(value)):
        raise Refused("bad_json", "null or a forbidden character")
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise Refused("too_deep", f"more than {MAX_DEPTH} levels")
        for item in value:
            _check_strict(item, depth + 1)
    if isinstance(value, dict):
        for item in value.values():
            _check_strict(item, depth + 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Refused("duplicate_name", " ".join(name for name, _ in pairs)[:80])
    return value


def _integer(text: str) -> int:
    if len(text) > 16 or not text.isdigit() or int(text) > MAX_INTEGER:
        raise Refused("bad_number", text[:20])
    return int(text)


def _encode64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decode64(part: bytes) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raw = b""
    if not raw or _encode64(raw) != part:
        raise Refused("bad_base64", ascii(part[:80]))
    return raw
