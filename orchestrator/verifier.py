"""The reference device verifier of `otad/1`: what a device may believe, and nothing else.

Rules:
- Nothing but the standard library and `cryptography`; no I/O, no clock, no state of its own.
- Whatever is not allowed is refused with one code out of `REASONS`; no other exception leaves this module.
- Fixed limits, tables as data, checks in the order of `docs/protocol.md`: a port to C or MicroPython is a translation.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

TRIGGER, ARTIFACT = "ota-trigger+jws", "ota-artifact+jws"
MAX_TOKEN_BYTES, MAX_PAYLOAD_BYTES = 2048, 1200
MAX_KEYS_BYTES, MAX_URL_BYTES = 8192, 4096
MAX_DEPTH, MAX_INTEGER = 4, 2**53 - 1
MAX_LIFETIME_S, MAX_SEQ_JUMP = 400 * 86_400, 1_000_000

# A code never changes its meaning and is never used again: agents send it in reports, people look it up.
REASONS: Mapping[str, str] = {
    "bad_bundle": "The message is not one recall, or one trigger and one statement, each on its own line.",
    "too_long": "A token is longer than 2,048 bytes, or its payload longer than 1,200.",
    "not_a_token": "A line is not three parts with a dot between.",
    "bad_base64": "A part is not canonical base64url without padding.",
    "bad_header": "The header is not, byte for byte, of the one form that this format allows.",
    "wrong_type": "The token is of another type than the one expected in its place.",
    "unknown_key": "The header names a key that this device does not hold.",
    "wrong_role": "The key may not sign tokens of this type.",
    "bad_signature": "The signature does not hold over these bytes.",
    "high_s": "The signature is the twin with the high s, which no signer of this format makes.",
    "bad_json": "The payload is not one JSON object in strict UTF-8 without null and control characters.",
    "duplicate_name": "An object in the payload has the same name twice.",
    "bad_number": "A number is not an integer from 0 to 2^53-1.",
    "too_deep": "The payload nests deeper than four levels.",
    "missing_field": "A field that must be there is missing.",
    "bad_field": "A field has a type, form or range that is not allowed.",
    "unknown_critical": "A field must be understood, says the issuer, and this verifier does not know it.",
    "wrong_issuer": "The token was made for another deployment.",
    "wrong_epoch": "The token was made under another key epoch.",
    "not_addressed": "The audience names neither this device nor its model nor a group of it.",
    "unknown_component": "The device has no such component.",
    "unsupported_act": "The verifier does not know what the token asks for.",
    "stale_seq": "The sequence number was passed already: a replay, or a message that was overtaken.",
    "seq_jump": "The sequence number is more than 1,000,000 ahead.",
    "expired": "The trigger or recall has expired.",
    "wrong_hardware": "The artifact is not for this hardware model.",
    "from_too_low": "The running release is older than the oldest that may jump to this one.",
    "security_epoch": "The security epoch is lower than the one that the device has reached.",
    "downgrade": "The release is older than the running one.",
    "other_image": "The release has the number of the running one, but another image.",
    "statement_missing": "There is no artifact statement behind the trigger.",
    "statement_hash": "The statement is not the one that the trigger names.",
    "statement_field": "Trigger and statement do not say the same about the artifact.",
    "statement_expired": "The artifact statement has expired.",
    "downgrade_not_allowed": "A rollback is asked for that the artifact statement does not allow.",
    "requirement_unmet": "Another component is older than the statement requires.",
    "cosign_required": "An emergency needs cosignatures, and no cosigners are provisioned.",
    "url_malformed": "A URL is not printable ASCII of the form scheme://host[:port]/path without a fragment.",
    "url_scheme": "A URL is neither https nor, where allowed, plain http to loopback.",
    "url_userinfo": "A URL carries a user name or password.",
    "url_ip_literal": "A URL names its host by an address instead of a name.",
    "url_origin": "A URL leads to an origin that this device may not fetch from.",
    "bad_keys": "The document of public keys is too long, names a key twice, or holds a point off the curve.",
}

# What a field may hold, the same wherever it occurs. Names that are not here are ignored, unless `crit` lists them.
_ARRAYS = {"aud": 8, "hw": 8, "url": 4, "crit": 8, "dn": 32, "req": 8, "keys": 16}  # 1 to so many of what follows
_OBJECTS = {"out": "size sha256", "pol": "jit? dl?", "req": "comp rel", "keys": "kid typ x y"}
_OBJECTS |= dict.fromkeys(("sbom", "vex", "prov"), "sha256 uri?")
_INTEGERS = {"v": (1, 1), "urg": (0, 3), "jit": (0, MAX_LIFETIME_S), "dl": (1, MAX_LIFETIME_S)}  # from, to
_INTEGERS |= dict.fromkeys(("ep", "seq", "rel", "size", "exp"), (1, MAX_INTEGER))
_INTEGERS |= dict.fromkeys(("wave", "sec", "from", "iat", "dn"), (0, MAX_INTEGER))
_TEXTS = {  # names of fields: pattern of the whole string
    "iss comp cid fmt hw": r"[a-z0-9][a-z0-9._-]{0,63}",
    "name ver commit crit": r".{1,64}",
    "adv msg": r".{1,200}",
    "url uri": r"[!-~]{1,512}",
    "sha256 base ast tok x y": r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]",
    "aud": r"[dgm]:[a-z0-9][a-z0-9._-]{0,63}",
    "act": r"[a-z]{1,16}",
    "jti": r"[A-Za-z0-9_-]{12,43}",
    "att": r"[1-9][0-9]{0,17}\.[1-9][0-9]{0,3}",
    "kid": r"[A-Za-z0-9_-]{1,64}",
    "typ": r"ota-(trigger|artifact|cosign|beat|keys)\+jws",
}
_PATTERNS = {name: re.compile(pattern) for names, pattern in _TEXTS.items() for name in names.split()}
# The names in a payload; "?" marks those that may be missing.
_SHARED = "name ver rel sec comp hw from size sha256 fmt out? base?"
_STATEMENT = f"v iat {_SHARED} crit? exp? req? dn? sbom? vex? prov? commit?"
_ORDER = "v iss ep aud comp cid act seq jti att iat exp crit?"
_OFFER = f"wave url ast urg {_SHARED} pol? adv? msg?"
_ACTS = {"install": _OFFER, "rollback": _OFFER, "cancel": "tok"}
_CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{1,64})","typ":"(ota-[a-z]{4,8}\+jws)"\}')
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_URL = re.compile(r"([a-z]+)://([!$-.:;=?-Z\[\]_a-z~0-9]*)/[!$-;=?-Z\[\]_a-z~]*")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?")
_ADDRESS = re.compile(r"\[.*|(.*\.)?(0x[0-9a-f]*|[0-9]+)(:[0-9]*)?")
_LOOPBACK = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:[1-9][0-9]{0,4})?")


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """Something is not believed. Report only a refusal that has `claims`: anybody could have caused the others."""

    def __init__(self, code: str, detail: object) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code  # one of REASONS
        self.detail = str(detail)  # for a person, never judged
        self.claims: Mapping[str, Any] = {}  # of a trigger or recall that is authentic and meant for this device


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


@dataclass(frozen=True, slots=True)
class Component:
    """Durable state of one component; the agent raises `rel`, `sec` and `sha256` when it confirms a release."""

    name: str
    rel: int  # running release
    sec: int  # security epoch reached
    seq: int  # highest sequence number accepted
    held: str = ""  # token hash of the trigger held
    att: str = ""  # attempt held
    sha256: str = ""  # hash of the running image in base64url, "" if unknown
    recall: str = ""  # token hash of the last recall, "" once a trigger was accepted after it


@dataclass(frozen=True, slots=True)
class Device:
    """Who the device is and what it was provisioned to trust."""

    id: str
    groups: tuple[str, ...]
    model: str
    iss: str  # deployment it belongs to
    ep: int  # key epoch
    keys: Mapping[str, PublicKey]  # by `kid`
    components: Mapping[str, Component]  # by name
    allowed_origins: tuple[str, ...]  # `scheme://host[:port]` it may fetch from, compared exactly
    loopback: bool = False  # whether plain http to loopback is allowed, for rehearsals


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an accepted bundle means."""

    kind: str  # "install" (begin), "refresh" (repeat the last report, keep the claims accepted first) or "recall"
    claims: Mapping[str, Any]  # of the trigger or recall
    statement: Mapping[str, Any] | None  # claims of the artifact statement, None for a recall
    token_hash: str  # of the trigger or recall
    component: Component  # to store before acting; if the answer to a recall is `too_late`, only `seq` and `recall`


def verify(bundle: bytes, device: Device, now: int | None) -> Verdict:
    """Judge a bundle at `now` (epoch seconds, None without a clock), or raise `Refused` with the first reason found."""
    lines = bundle.split(b"\n")  # a trigger and its statement, or a recall
    claims = open_token(lines[0], TRIGGER, device.keys)
    mine = [f"d:{device.id}", f"m:{device.model}", *(f"g:{group}" for group in device.groups)]
    _require("wrong_issuer", claims["iss"] == device.iss, claims["iss"])
    _require("wrong_epoch", claims["ep"] == device.ep, claims["ep"])
    _require("not_addressed", any(name in mine for name in claims["aud"]), claims["aud"])
    _require("unknown_component", claims["comp"] in device.components, claims["comp"])
    try:
        return _judge(lines, claims, device, now)
    except Refused as refusal:
        refusal.claims = claims
        raise


def _judge(lines: list[bytes], claims: dict[str, Any], device: Device, now: int | None) -> Verdict:
    running, mark, seq = device.components[claims["comp"]], token_hash(lines[0]), claims["seq"]
    repeated, same_attempt = mark in (running.held, running.recall), claims["att"] == running.att
    if not repeated:  # what was accepted once is neither stale nor expired
        _require("stale_seq", seq > running.seq, f"{seq} is not above {running.seq}")
        _require("seq_jump", seq - running.seq <= MAX_SEQ_JUMP, f"from {running.seq} to {seq}")
        _require("expired", now is None or now < claims["exp"], f"at {claims['exp']}, now {now}")
    if claims["act"] == "cancel":
        _require("bad_bundle", len(lines) == 1, "a recall stands alone")
        held, att = ("", "") if same_attempt else (running.held, running.att)
        after = running if repeated else replace(running, seq=seq, recall=mark, held=held, att=att)
        return Verdict("recall", claims, None, mark, after)
    refresh = repeated or same_attempt  # begins nothing, so it need not fit what runs by now
    if not refresh:
        rel, sec = claims["rel"], claims["sec"]
        _require("wrong_hardware", device.model in claims["hw"], device.model)
        _require("from_too_low", running.rel >= claims["from"], f"runs {running.rel}, needs {claims['from']}")
        _require("security_epoch", sec >= running.sec, f"{sec} is below {running.sec}")
        _require("downgrade", rel >= running.rel or claims["act"] == "rollback", f"{rel} is below {running.rel}")
        _require("other_image", rel != running.rel or claims["sha256"] == running.sha256, f"release {rel}")
    statement = _open_statement(lines, claims, device.keys)
    if not refresh:
        ends_at, leaves = statement.get("exp", MAX_INTEGER), statement.get("dn", [])
        _require("statement_expired", now is None or now < ends_at, f"at {ends_at}, now {now}")
        _require("downgrade_not_allowed", running.rel in leaves or claims["act"] == "install", f"from {running.rel}")
        for need in statement.get("req", []):
            other = device.components.get(need["comp"])
            _require("requirement_unmet", other and other.rel >= need["rel"], f"{need['comp']} below {need['rel']}")
    _require("cosign_required", claims["urg"] < 3, "urgency is emergency")
    for url in claims["url"]:
        check_url(url, device)
    after = running if repeated else replace(running, seq=seq, held=mark, att=claims["att"], recall="")
    return Verdict("refresh" if refresh else "install", claims, statement, mark, after)


def _open_statement(lines: list[bytes], claims: dict[str, Any], keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    _require("statement_missing", len(lines) > 1, "one line only")
    _require("bad_bundle", len(lines) == 2, f"{len(lines)} lines")
    statement = open_token(lines[1], ARTIFACT, keys)
    _require("statement_hash", token_hash(lines[1]) == claims["ast"], token_hash(lines[1]))
    for name in _SHARED.replace("?", "").split():
        _require("statement_field", claims.get(name) == statement.get(name), name)
    return statement


def check_url(url: str, device: Device) -> None:
    """Check a download URL, and every URL that a redirect leads to before following it; raises `Refused`."""
    match = _URL.fullmatch(url)
    if match is None or len(url) > MAX_URL_BYTES:
        raise Refused("url_malformed", ascii(url[:80]))
    scheme, authority = match.groups()
    _require("url_userinfo", "@" not in authority, authority)
    if not (scheme == "http" and device.loopback and _LOOPBACK.fullmatch(authority)):
        _require("url_scheme", scheme == "https", scheme)
        _require("url_ip_literal", not _ADDRESS.fullmatch(authority), authority)
        _require("url_malformed", _HOST.fullmatch(authority), authority)
    _require("url_origin", f"{scheme}://{authority}" in device.allowed_origins, authority)


def open_token(token: bytes, typ: str, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """Check envelope, signature and fields of a `TRIGGER` or `ARTIFACT` token; return its claims or raise `Refused`."""
    _require("too_long", len(token) <= MAX_TOKEN_BYTES, f"{len(token)} bytes")
    parts = token.split(b".")
    _require("not_a_token", len(parts) == 3, f"{len(parts)} parts")
    header = _HEADER.fullmatch(_decode64(parts[0]))
    if header is None:
        raise Refused("bad_header", ascii(parts[0][:80]))
    kid, found = header[1].decode(), header[2].decode()
    _require("wrong_type", found == typ, found)
    _require("unknown_key", kid in keys, kid)
    _require("wrong_role", keys[kid].typ == typ, kid)
    payload = _decode64(parts[1])
    _require("too_long", len(payload) <= MAX_PAYLOAD_BYTES, f"{len(payload)} bytes of payload")
    _check_signature(keys[kid], parts[0] + b"." + parts[1], _decode64(parts[2]))
    claims = _parse(payload)
    shape, known = (_ORDER, f"{_ORDER} {_OFFER} tok") if typ == TRIGGER else (_STATEMENT, _STATEMENT)
    _check_fields(claims, shape)
    if typ == TRIGGER:
        _require("unsupported_act", claims["act"] in _ACTS, claims["act"])
        _check_fields(claims, _ACTS[claims["act"]])
        _require("bad_field", claims["exp"] - claims["iat"] <= MAX_LIFETIME_S, "exp")
    _require("bad_field", claims["iat"] < claims.get("exp", MAX_INTEGER + 1), "exp")
    _require("missing_field", "base" not in claims or "out" in claims, "out")
    for name in claims.get("crit", []):
        _require("unknown_critical", name in known.replace("?", "").split(), name)
    return claims


def token_hash(token: bytes) -> str:
    """Return base64url(SHA-256) of header and payload: signatures are not unique, these are."""
    return base64.urlsafe_b64encode(hashlib.sha256(token[: token.rfind(b".")]).digest()).rstrip(b"=").decode()


def load_keyset(document: bytes) -> Keyset:
    """Read the document of public keys that devices are provisioned with; raises `Refused`."""
    _require("bad_keys", len(document) <= MAX_KEYS_BYTES, f"{len(document)} bytes")
    claims = _parse(document)
    _check_fields(claims, "v iss ep keys")
    keys: dict[str, PublicKey] = {}
    for entry in claims["keys"]:
        key = PublicKey(entry["kid"], entry["typ"], _decode64(entry["x"].encode()), _decode64(entry["y"].encode()))
        twice = key.kid in keys or any(key.x == other.x for other in keys.values())
        _require("bad_keys", not twice, f"key {key.kid} is there twice")
        _point(key)
        keys[key.kid] = key
    return Keyset(claims["iss"], claims["ep"], keys)


def load_keys(document: bytes) -> dict[str, PublicKey]:
    """Return the keys of `load_keyset` by `kid`."""
    return load_keyset(document).keys


def _check_signature(key: PublicKey, signed: bytes, signature: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    in_range = len(signature) == 64 and 0 < r < _CURVE_ORDER and 0 < s < _CURVE_ORDER
    _require("bad_signature", in_range, "not 64 bytes of r and s")
    _require("high_s", s <= _CURVE_ORDER // 2, "the low one is n - s")
    try:
        _point(key).verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("bad_signature", f"key {key.kid}") from None


def _point(key: PublicKey) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.x + key.y)
    except ValueError:
        raise Refused("bad_keys", f"key {key.kid} is not on the curve") from None


def _parse(payload: bytes) -> dict[str, Any]:
    hooks: dict[str, Any] = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), _integer)
    try:
        value: dict[str, Any] = json.loads(payload.decode(), object_pairs_hook=_unique, **hooks)
    except ValueError as error:
        raise Refused("bad_json", error) from None
    except RecursionError:
        raise Refused("too_deep", "far too deep") from None
    _require("bad_json", isinstance(value, dict), "not an object")
    _check_strict(value, 1)
    return value


def _integer(text: str) -> int:
    _require("bad_number", len(text) <= 16 and text.isdigit() and int(text) <= MAX_INTEGER, text[:20])
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require("duplicate_name", len(dict(pairs)) == len(pairs), " ".join(name for name, _ in pairs)[:80])
    return dict(pairs)


def _check_strict(value: Any, depth: int) -> None:
    forbidden = value is None or (isinstance(value, str) and _FORBIDDEN.search(value))
    _require("bad_json", not forbidden, "null or a forbidden character")
    if isinstance(value, dict | list):
        _require("too_deep", depth <= MAX_DEPTH, f"more than {MAX_DEPTH} levels")
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_strict(item, depth + 1)


def _check_fields(value: Mapping[str, Any], shape: str) -> None:
    for name in shape.split():
        _require("missing_field", name.endswith("?") or name in value, name)
    for name in shape.replace("?", "").split():
        if name in value:
            _check_field(name, value[name])


def _check_field(name: str, value: Any) -> None:
    if name in _ARRAYS:
        _require("bad_field", isinstance(value, list) and 1 <= len(value) <= _ARRAYS[name], name)
    for item in value if name in _ARRAYS else [value]:
        if name in _INTEGERS:
            _require("bad_field", type(item) is int and _INTEGERS[name][0] <= item <= _INTEGERS[name][1], name)
        elif name in _OBJECTS:
            _require("bad_field", isinstance(item, dict), name)
            _check_fields(item, _OBJECTS[name])
        else:
            _require("bad_field", isinstance(item, str) and _PATTERNS[name].fullmatch(item), name)


def _require(code: str, holds: object, detail: object) -> None:
    if not holds:
        raise Refused(code, detail)


def _decode64(part: bytes) -> bytes:
    _require("bad_base64", re.fullmatch(rb"[A-Za-z0-9_-]+", part) and len(part) % 4 != 1, ascii(part[:80]))
    raw = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    _require("bad_base64", base64.urlsafe_b64encode(raw).rstrip(b"=") == part, ascii(part[:80]))
    return raw
