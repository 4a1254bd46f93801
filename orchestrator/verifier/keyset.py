"""Keysets: the keys that a device trusts, and how they are replaced.

Rules:
- A keyset is followed by the next version only, signed by the root thresholds of both.
- Root keys are counted by their point: another name, or the same point negated, is the same key.
- The new payload is not parsed before the keys that are held have vouched for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.verifier.fields import (
    ARTIFACT,
    COSIGN,
    KEYS,
    MAX_INTEGER,
    PROVISIONED,
    check_critical,
    check_fields,
    check_span,
    decode64,
    parse,
    read_claims,
)
from orchestrator.verifier.reasons import require
from orchestrator.verifier.token import PublicKey, check_line, point, read_lines

MAX_KEYS_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Keyset:
    """Deployment, key epoch (the version of the keyset), keys by `kid`, and how many must sign."""

    iss: str
    ep: int
    keys: dict[str, PublicKey]
    need_root: int = 0  # root keys that must sign the next keyset, 0 if it can have none
    need_cosign: int = 0  # persons that must sign a warrant, 0 if there can be no emergency


def load_keyset(document: bytes) -> Keyset:
    """Read the document of public keys that devices are provisioned with; raises `Refused`."""
    require("bad_keys", len(document) <= MAX_KEYS_BYTES, f"{len(document)} bytes")
    claims = parse(document)
    check_fields(claims, PROVISIONED)
    check_span(claims, MAX_INTEGER + 1)
    check_critical(claims, PROVISIONED)
    return _keyset(claims)


def load_keys(document: bytes) -> dict[str, PublicKey]:
    """Return the keys of `load_keyset` by `kid`."""
    return load_keyset(document).keys


def adopt(bundle: bytes, held: Keyset, now: int | None) -> Keyset:
    """Judge the lines of a keyset at `now` (epoch seconds, None without a clock); raises `Refused`.

    Returns:
        The keyset that takes the place of `held`.
    """
    require("root_required", held.need_root and _roots(held), f"keyset {held.ep}")
    lines = read_lines(bundle.split(b"\n"), KEYS)
    signers = [check_line(line, held.keys, now) for line in lines if line.kid in held.keys]
    points = {key.x for key in signers}
    require("too_few_signers", len(points) >= held.need_root, f"{len(points)} of {held.need_root} held root keys")
    claims = read_claims(decode64(lines[0].payload), KEYS)
    require("wrong_issuer", claims["iss"] == held.iss, claims["iss"])
    require("wrong_version", claims["ep"] == held.ep + 1, f"{claims['ep']} does not follow {held.ep}")
    new = _keyset(claims)
    signers += [check_line(line, new.keys, now) for line in lines if line.kid not in held.keys]
    points = {key.x for key in signers}
    require("signed_twice", len(points) == len(signers), "a key has two names")
    both = points & _roots(new)
    require("too_few_signers", len(both) >= new.need_root, f"{len(both)} of {new.need_root} new root keys")
    ends_at = claims.get("exp", MAX_INTEGER)
    require("keyset_expired", now is None or now < ends_at, f"at {ends_at}, now {now}")
    return new


def _keyset(claims: Mapping[str, Any]) -> Keyset:
    keys: dict[str, PublicKey] = {}
    for entry in claims["keys"]:
        key = _key(entry)
        twice = key.kid in keys or any(key.x == other.x for other in keys.values())
        require("bad_keys", not twice, f"key {key.kid} is there twice")
        keys[key.kid] = key
    need = claims.get("need", {"root": 0, "cosign": 0})
    keyset = Keyset(claims["iss"], claims["ep"], keys, need["root"], need["cosign"])
    roots, persons = len(_roots(keyset)), len({key.who for key in keys.values() if key.who})
    require("need_unmet", roots >= need["root"], f"{roots} root keys, {need['root']} must sign")
    require("need_unmet", persons >= need["cosign"] or not persons, f"{persons} cosigners, {need['cosign']} must sign")
    return keyset


def _key(entry: Mapping[str, Any]) -> PublicKey:
    x, y = decode64(entry["x"].encode()), decode64(entry["y"].encode())
    nbf, exp, hw = entry.get("nbf", 0), entry.get("exp"), tuple(entry.get("hw", ()))
    key = PublicKey(entry["kid"], entry["typ"], x, y, nbf, exp, entry.get("who", ""), hw)
    require("key_field", bool(key.who) == (key.typ == COSIGN), f"who of key {key.kid}")
    require("key_field", not hw or key.typ == ARTIFACT, f"hw of key {key.kid}")
    require("key_field", exp is None or nbf < exp, f"exp of key {key.kid}")
    point(key)
    return key


def _roots(keyset: Keyset) -> set[bytes]:
    return {key.x for key in keyset.keys.values() if key.typ == KEYS}
