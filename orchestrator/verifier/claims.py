"""The claims of `otad/1`: which fields there are, and what each may hold.

Rules:
- Every field that the protocol names has a rule here; names not known here are ignored, unless `crit` lists them.
- The tables are data, so that a port can take them over line by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.verifier.reasons import Refused

TRIGGER = "ota-trigger+jws"
ARTIFACT = "ota-artifact+jws"
MAX_INTEGER = 2**53 - 1
MAX_LIFETIME_S = 400 * 86_400


@dataclass(frozen=True, slots=True)
class Shape:
    """An object: names that must be there and names that may be, each with the rule of its value.

    A rule is a pattern (a string that matches it whole), a pair (an integer from, to), a `Many` or a `Shape`.
    Other names are ignored.
    """

    required: Mapping[str, Any]
    optional: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Many:
    """An array of one to `most` values under one rule."""

    rule: Any
    most: int


HASH = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_COUNTER = (0, MAX_INTEGER)
_POSITIVE = (1, MAX_INTEGER)
_NAME = re.compile(r".{1,64}")
_TEXT = re.compile(r".{1,200}")
_LINK = re.compile(r"[!-~]{1,512}")
_PAYLOAD_REF = Shape({"sha256": HASH}, {"uri": _LINK})
_CRITICAL = {"crit": Many(_NAME, 8)}

_ARTIFACT_FIELDS = {
    "v": (1, 1),
    "name": _NAME,
    "ver": _NAME,
    "rel": _POSITIVE,
    "sec": _COUNTER,
    "comp": IDENTIFIER,
    "hw": Many(IDENTIFIER, 8),
    "from": _COUNTER,
    "size": _POSITIVE,
    "sha256": HASH,
    "fmt": IDENTIFIER,
    "iat": _COUNTER,
}
_DELTA_FIELDS = {"out": Shape({"size": _POSITIVE, "sha256": HASH}, {}), "base": HASH}
_STATEMENT = Shape(
    _ARTIFACT_FIELDS,
    {
        **_DELTA_FIELDS,
        **_CRITICAL,
        "exp": _POSITIVE,
        "req": Many(Shape({"comp": IDENTIFIER, "rel": _POSITIVE}, {}), 8),
        "dn": Many(_COUNTER, 32),
        "sbom": _PAYLOAD_REF,
        "vex": _PAYLOAD_REF,
        "prov": _PAYLOAD_REF,
        "commit": _NAME,
    },
)
_ORDER = Shape(
    {
        "v": (1, 1),
        "iss": IDENTIFIER,
        "ep": _POSITIVE,
        "aud": Many(re.compile(r"[dgm]:[a-z0-9][a-z0-9._-]{0,63}"), 8),
        "comp": IDENTIFIER,
        "cid": IDENTIFIER,
        "act": re.compile(r"[a-z]{1,16}"),
        "seq": _POSITIVE,
        "jti": re.compile(r"[A-Za-z0-9_-]{12,43}"),
        "att": re.compile(r"[1-9][0-9]{0,17}\.[1-9][0-9]{0,3}"),
        "iat": _COUNTER,
        "exp": _POSITIVE,
    },
    _CRITICAL,
)
_RECALL = Shape({"tok": HASH}, {})
_OFFER = Shape(
    {**_ARTIFACT_FIELDS, "wave": _COUNTER, "url": Many(_LINK, 4), "ast": HASH, "urg": (0, 3)},
    {
        **_DELTA_FIELDS,
        "pol": Shape({}, {"jit": (0, MAX_LIFETIME_S), "dl": (1, MAX_LIFETIME_S)}),
        "adv": _TEXT,
        "msg": _TEXT,
    },
)
SHARED = ("name", "ver", "rel", "sec", "comp", "hw", "from", "size", "sha256", "fmt", "out", "base")
_KNOWN = {
    TRIGGER: {*_ORDER.required, *_ORDER.optional, *_RECALL.required, *_OFFER.required, *_OFFER.optional},
    ARTIFACT: {*_STATEMENT.required, *_STATEMENT.optional},
}
KEYSET = Shape(
    {
        "v": (1, 1),
        "iss": IDENTIFIER,
        "ep": _POSITIVE,
        "keys": Many(
            Shape(
                {
                    "kid": re.compile(r"[A-Za-z0-9_-]{1,64}"),
                    "typ": re.compile(r"ota-(trigger|artifact|cosign|beat|keys)\+jws"),
                    "x": HASH,
                    "y": HASH,
                },
                {},
            ),
            16,
        ),
    },
    {},
)


def check_claims(claims: Mapping[str, Any], typ: str) -> None:
    """Check every field of a trigger, recall or artifact statement.

    Raises:
        Refused: with the first field that is wrong.
    """
    if typ == ARTIFACT:
        check_fields(claims, _STATEMENT)
    else:
        check_fields(claims, _ORDER)
        _check_act(claims)
    if "exp" in claims and not claims["iat"] < claims["exp"]:
        raise Refused("bad_field", "exp")
    if "base" in claims and "out" not in claims:
        raise Refused("missing_field", "out")
    for name in claims.get("crit", []):
        if name not in _KNOWN[typ]:
            raise Refused("unknown_critical", name)


def check_fields(claims: Mapping[str, Any], shape: Shape) -> None:
    """Check that an object has the given shape.

    Raises:
        Refused: `missing_field` or `bad_field`, with the name.
    """
    for name in shape.required:
        if name not in claims:
            raise Refused("missing_field", name)
    for name, rule in {**shape.required, **shape.optional}.items():
        if name in claims:
            _check_value(claims[name], rule, name)


def _check_act(claims: Mapping[str, Any]) -> None:
    if claims["act"] == "cancel":
        check_fields(claims, _RECALL)
    elif claims["act"] in ("install", "rollback"):
        check_fields(claims, _OFFER)
    else:
        raise Refused("unsupported_act", claims["act"])
    if claims["exp"] - claims["iat"] > MAX_LIFETIME_S:
        raise Refused("bad_field", "exp")


def _check_value(value: Any, rule: Any, name: str) -> None:
    if isinstance(rule, tuple):
        good = type(value) is int and rule[0] <= value <= rule[1]
    elif isinstance(rule, Many):
        good = isinstance(value, list) and 1 <= len(value) <= rule.most
        for item in value if good else ():
            _check_value(item, rule.rule, name)
    elif isinstance(rule, Shape):
        good = isinstance(value, dict)
        if good:
            check_fields(value, rule)
    else:
        good = isinstance(value, str) and rule.fullmatch(value) is not None
    if not good:
        raise Refused("bad_field", name)
