"""Payloads: strict JSON, and what each field may hold.

Rules:
- A field has one rule, the same wherever it occurs; the rules are tables.
- Nothing is parsed here before its signature was checked: that is up to the callers.
- Names that no table knows are ignored, unless `crit` lists them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.verifier.reasons import Refused, require

TRIGGER, ARTIFACT, COSIGN = "ota-trigger+jws", "ota-artifact+jws", "ota-cosign+jws"
BEAT, KEYS = "ota-beat+jws", "ota-keys+jws"
MAX_DEPTH, MAX_INTEGER, MAX_LIFETIME_S = 4, 2**53 - 1, 400 * 86_400

_ARRAYS = {"aud": 8, "hw": 8, "url": 4, "crit": 8, "dn": 32, "req": 8, "keys": 16, "asts": 8, "link": 3}  # 1 to so many
_OBJECTS = {"out": "size sha256", "req": "comp rel", "need": "root cosign"}
_OBJECTS |= {"pol": "jit? dl? bat? chg? free? link? unm? up?", "keys": "kid typ x y nbf? exp? who? hw?"}
_OBJECTS |= dict.fromkeys(("sbom", "vex", "prov"), "sha256 uri?")
_INTEGERS = {"v": (1, 1), "urg": (0, 3), "jit": (0, MAX_LIFETIME_S), "dl": (1, MAX_LIFETIME_S)}  # from, to
_INTEGERS |= {"bat": (1, 100), "chg": (1, 1), "unm": (1, 1), "up": (1, MAX_LIFETIME_S)}
_INTEGERS |= dict.fromkeys(("root", "cosign"), (1, 8))
_INTEGERS |= dict.fromkeys(("ep", "rel", "size", "exp", "most"), (1, MAX_INTEGER))
_INTEGERS |= dict.fromkeys(("seq", "floor", "wave", "sec", "from", "iat", "nbf", "dn", "free"), (0, MAX_INTEGER))
_TEXTS = {  # names of fields: pattern of the whole string
    "iss comp cid fmt hw who": r"[a-z0-9][a-z0-9._-]{0,63}",
    "name ver commit crit": r".{1,64}",
    "adv msg": r".{1,200}",
    "url uri": r"[!-~]{1,512}",
    "sha256 base ast asts tok x y": r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]",
    "aud": r"[dgm]:[a-z0-9][a-z0-9._-]{0,63}",
    "act": r"[a-z]{1,16}",
    "link": r"wifi|ethernet|cellular",
    "jti": r"[A-Za-z0-9_-]{12,43}",
    "att": r"[1-9][0-9]{0,17}\.[1-9][0-9]{0,3}",
    "kid": r"[A-Za-z0-9_-]{1,64}",
    "typ": r"ota-(trigger|artifact|cosign|beat|keys)\+jws",
}
_PATTERNS = {name: re.compile(pattern) for names, pattern in _TEXTS.items() for name in names.split()}
# The names in a payload; "?" marks those that may be missing.
SHARED = "name ver rel sec comp hw from size sha256 fmt out? base?"  # by trigger and statement
PROVISIONED = "v iss ep keys iat? need? exp? crit?"
_SHAPES = {
    TRIGGER: "v iss ep aud comp cid act seq jti att iat exp crit?",
    ARTIFACT: f"v iat {SHARED} crit? exp? req? dn? sbom? vex? prov? commit?",
    COSIGN: "v iss ep cid asts aud most iat exp crit?",
    BEAT: "v iss ep seq floor iat exp crit?",
    KEYS: "v iss ep iat keys need exp? crit?",
}
_OFFER = f"wave url ast urg {SHARED} pol? adv? msg?"
_ACTS = {"install": _OFFER, "rollback": _OFFER, "cancel": "tok"}
_LIFETIMES_S = {TRIGGER: MAX_LIFETIME_S, COSIGN: 30 * 86_400, BEAT: 7 * 86_400}
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_claims(payload: bytes, typ: str) -> dict[str, Any]:
    """Return the claims of a payload of type `typ` whose signature was checked; raises `Refused`."""
    claims = parse(payload)
    check_fields(claims, _SHAPES[typ])
    known = _SHAPES[typ]
    if typ == TRIGGER:
        require("unsupported_act", claims["act"] in _ACTS, claims["act"])
        require("bad_field", claims["seq"] > 0, "seq")
        check_fields(claims, _ACTS[claims["act"]])
        known += f" {_OFFER} tok"
    check_span(claims, _LIFETIMES_S.get(typ, MAX_INTEGER + 1))
    require("missing_field", "base" not in claims or "out" in claims, "out")
    check_critical(claims, known)
    return claims


def check_span(claims: Mapping[str, Any], longest_s: int) -> None:
    """Check that what ends does so after it begins, and at most `longest_s` later."""
    span_s = claims.get("exp", MAX_INTEGER + 1) - claims.get("iat", 0)
    require("bad_field", 0 < span_s <= longest_s, "exp")


def check_critical(claims: Mapping[str, Any], known: str) -> None:
    """Check that every name in `crit` is one of `known`."""
    for name in claims.get("crit", []):
        require("unknown_critical", name in known.replace("?", "").split(), name)


def parse(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in `payload`, judged strictly; raises `Refused`."""
    hooks: dict[str, Any] = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), _integer)
    try:
        value: dict[str, Any] = json.loads(payload.decode(), object_pairs_hook=_unique, **hooks)
    except ValueError as error:
        raise Refused("bad_json", error) from None
    except RecursionError:
        raise Refused("too_deep", "far too deep") from None
    require("bad_json", isinstance(value, dict), "not an object")
    _check_strict(value, 1)
    return value


def _integer(text: str) -> int:
    require("bad_number", len(text) <= 16 and text.isdigit() and int(text) <= MAX_INTEGER, text[:20])
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    require("duplicate_name", len(dict(pairs)) == len(pairs), " ".join(name for name, _ in pairs)[:80])
    return dict(pairs)


def _check_strict(value: Any, depth: int) -> None:
    forbidden = value is None or (isinstance(value, str) and _FORBIDDEN.search(value))
    require("bad_json", not forbidden, "null or a forbidden character")
    if isinstance(value, dict | list):
        require("too_deep", depth <= MAX_DEPTH, f"more than {MAX_DEPTH} levels")
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_strict(item, depth + 1)


def check_fields(value: Mapping[str, Any], shape: str) -> None:
    """Check that the names in `shape` are there and hold what they may; raises `Refused`."""
    for name in shape.split():
        require("missing_field", name.endswith("?") or name in value, name)
    for name in shape.replace("?", "").split():
        if name in value:
            _check_field(name, value[name])


def _check_field(name: str, value: Any) -> None:
    if name in _ARRAYS:
        require("bad_field", isinstance(value, list) and 1 <= len(value) <= _ARRAYS[name], name)
    for item in value if name in _ARRAYS else [value]:
        if name in _INTEGERS:
            require("bad_field", type(item) is int and _INTEGERS[name][0] <= item <= _INTEGERS[name][1], name)
        elif name in _OBJECTS:
            require("bad_field", isinstance(item, dict), name)
            check_fields(item, _OBJECTS[name])
        else:
            require("bad_field", isinstance(item, str) and _PATTERNS[name].fullmatch(item), name)


def decode64(part: bytes) -> bytes:
    """Return the bytes of canonical base64url without padding; raises `Refused`."""
    require("bad_base64", re.fullmatch(rb"[A-Za-z0-9_-]+", part) and len(part) % 4 != 1, ascii(part[:80]))
    raw = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    require("bad_base64", base64.urlsafe_b64encode(raw).rstrip(b"=") == part, ascii(part[:80]))
    return raw
