"""What the vectors are made of: fixed keys, default claims, and tokens right or wrong in one place.

Rules:
- Nothing here is shared with the code under test: tokens are put together from first principles.
- Signatures are deterministic, so that the files can be made again byte for byte.
- The keys are published; nothing but tests may trust them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
NOW = 1_800_000_000
DROP = object()
IMAGE = "zc7w5EEI0Oefjs3rFIMQc83ZeBMZvkZ6m-IRvFkS1VU"
OTHER_IMAGE = "w6JIvoRui-d6-Mar8qCxfLz9ywrFefqpgis_khzV24o"
ORIGIN = "https://fw.example.net"
URL = f"{ORIGIN}/v1/dl/{IMAGE}"
TRIGGER = "ota-trigger+jws"
ARTIFACT = "ota-artifact+jws"
COSIGN = "ota-cosign+jws"
BEAT = "ota-beat+jws"
KEYS = "ota-keys+jws"

Claims = dict[str, Any]


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def token_hash(token: bytes) -> str:
    return b64(hashlib.sha256(token[: token.rfind(b".")]).digest()).decode()


class Key:
    """A key pair made from its name."""

    def __init__(self, kid: str, typ: str, who: str = "") -> None:
        scalar = int.from_bytes(hashlib.sha256(b"otad/1 published test key " + kid.encode()).digest(), "big")
        self.kid = kid
        self.typ = typ
        self.who = who
        self._key = ec.derive_private_key(scalar % (ORDER - 1) + 1, ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        self.x, self.y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")

    @property
    def public(self) -> dict[str, Any]:
        entry = {"kid": self.kid, "typ": self.typ, "x": b64(self.x).decode(), "y": b64(self.y).decode()}
        return entry | ({"who": self.who} if self.who else {})

    def sign(self, data: bytes) -> bytes:
        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self._key.sign(data, algorithm))
        return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")

    def header(self, typ: str | None = None) -> bytes:
        return f'{{"alg":"ES256","kid":"{self.kid}","typ":"{typ or self.typ}"}}'.encode()

    def token(self, claims: Claims | bytes, *, header: bytes | None = None) -> bytes:
        """Return a token; claims given as bytes are the payload as it stands."""
        payload = claims if isinstance(claims, bytes) else compact(claims)
        signed = b64(self.header() if header is None else header) + b"." + b64(payload)
        return signed + b"." + b64(self.sign(signed))


trigger_key = Key("trigger-1", TRIGGER)
artifact_key = Key("artifact-1", ARTIFACT)
second_artifact_key = Key("artifact-2", ARTIFACT)
cosign_key = Key("cosign-1", COSIGN, "ann")
beat_key = Key("beat-1", BEAT)
root_key = Key("root-1", KEYS)
stranger_key = Key("stranger", TRIGGER)
PROVISIONED = (trigger_key, artifact_key, second_artifact_key, cosign_key, beat_key, root_key)


def component(**changes: Any) -> dict[str, Any]:
    """Return the state of component `main`; it runs release 4 and has accepted up to seq 100."""
    state = {"name": "main", "rel": 4, "sec": 1, "seq": 100, "held": "", "att": "", "sha256": "", "recall": ""}
    return state | changes


DEVICE: dict[str, Any] = {
    "id": "door-17",
    "groups": ["eu", "canary"],
    "model": "esp32-c3",
    "iss": "test-fleet",
    "ep": 3,
    "keys": [key.public for key in PROVISIONED],
    "components": [component(), {**component(), "name": "radio", "rel": 2, "seq": 90}],
    "allowed_origins": [ORIGIN, "https://cdn.example.net:8443"],
    "loopback": False,
    "need_root": 0,
    "need_cosign": 0,
    "floor": 0,
    "beat_iat": 0,
}

# A device that takes keysets (two of three root keys) and emergencies (two of three persons, one with two keys).
roots = [root_key, *(Key(f"root-{n}", KEYS) for n in range(2, 9))]
ann, bob, cat = cosign_key, Key("cosign-2", COSIGN, "bob"), Key("cosign-3", COSIGN, "cat")
ann_again = Key("cosign-4", COSIGN, "ann")
HOLDERS = (trigger_key, artifact_key, beat_key, *roots[:3], ann, bob, cat, ann_again)
SECURED: dict[str, Any] = DEVICE | {"keys": [key.public for key in HOLDERS], "need_root": 2, "need_cosign": 2}


def device(**main: Any) -> dict[str, Any]:
    """Return the part of the device state that differs where component `main` does."""
    return {"components": [component(**main), DEVICE["components"][1]]}


def statement(changes: Claims | None = None) -> Claims:
    claims: Claims = {
        "v": 1,
        "name": "door",
        "ver": "5.0.0",
        "rel": 5,
        "sec": 1,
        "comp": "main",
        "hw": ["esp32-c3"],
        "from": 0,
        "size": 4096,
        "sha256": IMAGE,
        "fmt": "raw",
        "iat": NOW - 86_400,
    }
    return edited(claims, changes)


def offer(changes: Claims | None = None) -> Claims:
    """Return the claims of a trigger; `ast` is put in by `bundle`."""
    shared = {name: value for name, value in statement().items() if name not in ("v", "comp", "iat")}
    claims: Claims = {
        "v": 1,
        "iss": "test-fleet",
        "ep": 3,
        "aud": ["d:door-17"],
        "comp": "main",
        "cid": "r-12",
        "act": "install",
        "seq": 101,
        "jti": "AAECAwQFBgcI",
        "att": "7.1",
        "iat": NOW - 60,
        "exp": NOW + 3600,
        "wave": 1,
        **shared,
        "url": [URL],
        "ast": "",
        "urg": 1,
    }
    return edited(claims, changes)


def recall(changes: Claims | None = None) -> Claims:
    common = {name: offer()[name] for name in ("v", "iss", "ep", "aud", "comp", "cid")}
    claims = {**common, "act": "cancel", "seq": 102, "jti": "CAcGBQQDAgEA", "att": "7.1", "tok": HELD}
    return edited(claims | {"iat": NOW - 30, "exp": NOW + 3600}, changes)


def edited(claims: Claims, changes: Claims | None) -> Claims:
    merged = claims | (changes or {})
    return {name: value for name, value in merged.items() if value is not DROP}


def bundle(trigger: Claims | None = None, artifact: Claims | None = None, both: Claims | None = None) -> bytes:
    """Return trigger and statement, with changes to one or to both of them."""
    line = artifact_key.token(statement({**(both or {}), **(artifact or {})}))
    claims = offer({"ast": token_hash(line), **(both or {}), **(trigger or {})})
    return trigger_key.token(claims) + b"\n" + line


def payload_bundle(edit: tuple[bytes, bytes]) -> bytes:
    """Return a rightly signed bundle whose trigger payload has one piece of text replaced."""
    line = artifact_key.token(statement())
    payload = compact(offer({"ast": token_hash(line)}))
    if payload.count(edit[0]) != 1:
        raise ValueError(f"{edit[0]!r} is not there exactly once")
    return trigger_key.token(payload.replace(*edit)) + b"\n" + line


def recalled(changes: Claims | None = None) -> bytes:
    return trigger_key.token(recall(changes))


def several(keys: Sequence[Key], claims: Claims | bytes, **headers: bytes) -> bytes:
    """Return a token with a line for each key; `headers` replaces headers by `kid`, written with "_" for "-"."""
    payload = b64(claims if isinstance(claims, bytes) else compact(claims))
    lines: list[bytes] = []
    for key in keys:
        header = b64(headers.get(key.kid.replace("-", "_"), key.header()))
        signature = b64(key.sign(header + b"." + payload))
        lines.append(header + b"." + (b"" if lines else payload) + b"." + signature)
    return b"\n".join(lines)


def keyset(changes: Claims | None = None) -> Claims:
    """Return the claims of the keyset that follows that of `SECURED`: root 1 goes, root 4 comes."""
    holders = (trigger_key, artifact_key, beat_key, *roots[1:4], ann, bob, cat)
    claims: Claims = {"v": 1, "iss": "test-fleet", "ep": 4, "iat": NOW - 60, "keys": [key.public for key in holders]}
    return edited(claims | {"need": {"root": 2, "cosign": 2}}, changes)


def warrant(changes: Claims | None = None) -> Claims:
    claims: Claims = {"v": 1, "iss": "test-fleet", "ep": 3, "cid": "r-12", "asts": [STATED], "aud": ["m:esp32-c3"]}
    return edited(claims | {"most": 50_000, "iat": NOW - 600, "exp": NOW + 86_400}, changes)


def beat(changes: Claims | None = None) -> Claims:
    claims: Claims = {"v": 1, "iss": "test-fleet", "ep": 3, "seq": 140, "floor": 90, "iat": NOW - 60}
    return edited(claims | {"exp": NOW + 86_400}, changes)


def emergency(signed: bytes | None = None, trigger: Claims | None = None, artifact: Claims | None = None) -> bytes:
    """Return trigger, statement and warrant; `signed` takes the place of the warrant of two persons."""
    return bundle({"urg": 3} | (trigger or {}), artifact) + b"\n" + (signed or several((ann, bob), warrant()))


@dataclass(frozen=True)
class Vector:
    """One bundle, who gets it when, and what must come of it.

    Attributes:
        name: unique, lower case with dashes.
        why: what is tried, and why it must end so.
        bundle: the bytes that arrive.
        expected: `{"reason": code}`, or what is to be answered and kept.
        device: members of the device state that differ from the file's default.
        clock: epoch seconds, None without a clock.
        call: what they arrive as: "bundle", "keyset", "beat", or "document" for provisioning.
    """

    name: str
    why: str
    bundle: bytes
    expected: dict[str, Any]
    device: dict[str, Any] = field(default_factory=dict)
    clock: int | None = NOW
    call: str = "bundle"

    def document(self, group: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "class": group,
            "why": self.why,
            "call": self.call,
            "bundle": self.bundle.decode("latin-1"),
            "device": self.device,
            "clock": self.clock,
            "expected": self.expected,
        }


def refused(
    reason: str,
    name: str,
    why: str,
    data: bytes,
    state: dict[str, Any] | None = None,
    clock: int | None = NOW,
    call: str = "bundle",
) -> Vector:
    return Vector(name, why, data, {"reason": reason}, state or {}, clock, call)


STATED = token_hash(artifact_key.token(statement()))


HELD = token_hash(bundle().split(b"\n")[0])
