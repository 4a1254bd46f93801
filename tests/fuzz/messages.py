"""The messages that mutants are made of: one of every kind, and tokens to steal parts from.

Rules:
- Every message is good: the device takes it, and `meaning` says what came of it.
- Every donor was really signed, and by a key that the device trusts, but says something else: none is good in the
  place of a line of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.verifier import take_beat, take_keyset, verify
from tests.golden import kit, ours
from tests.golden.kit import Key

DEVICE = ours.read_device(kit.SECURED)


@dataclass(frozen=True, slots=True)
class Message:
    """A good message.

    Attributes:
        name: what it is.
        data: the bytes.
        take: what the device does with bytes of this kind; raises `Refused`.
        signers: key of each line.
        first: for each line the number of the line that its payload stands in.
    """

    name: str
    data: bytes
    take: Callable[[bytes], object]
    signers: tuple[Key, ...]
    first: tuple[int, ...]

    @property
    def lines(self) -> list[bytes]:
        return self.data.split(b"\n")


def take_bundle(data: bytes) -> object:
    return verify(data, DEVICE, kit.NOW)


def take_keys(data: bytes) -> object:
    return take_keyset(data, DEVICE, kit.NOW)


def hear_beat(data: bytes) -> object:
    return take_beat(data, DEVICE, kit.NOW)


_PAIR = (kit.trigger_key, kit.artifact_key)
_OLD: kit.Claims = {"rel": 3}
MESSAGES = (
    Message("install", kit.bundle(), take_bundle, _PAIR, (0, 1)),
    Message("rollback", kit.bundle({"act": "rollback"}, {"dn": [9, 4]}, _OLD), take_bundle, _PAIR, (0, 1)),
    Message("recall", kit.recalled(), take_bundle, (kit.trigger_key,), (0,)),
    Message("emergency", kit.emergency(), take_bundle, (*_PAIR, kit.ann, kit.bob), (0, 1, 2, 2)),
    Message("beat", kit.beat_key.token(kit.beat()), hear_beat, (kit.beat_key,), (0,)),
    Message("keyset", kit.several(kit.roots[1:3], kit.keyset()), take_keys, tuple(kit.roots[1:3]), (0, 0)),
)
GOOD = frozenset(message.data for message in MESSAGES)

ELSEWHERE: Mapping[str, tuple[kit.Claims, ...]] = {
    kit.TRIGGER: (
        {"iss": "other-fleet"},
        {"ep": 2},
        {"aud": ["d:door-18"]},
        {"comp": "boot"},
        {"seq": 100},
        {"seq": 2**53 - 1},
        {"iat": kit.NOW - 7200, "exp": kit.NOW},
    ),
    kit.ARTIFACT: ({"sha256": kit.OTHER_IMAGE}, {"ver": "5.0.1"}, {"hw": ["esp32-s3"]}, {"size": 4097}, {"dn": [4]}),
    kit.COSIGN: (
        {"iss": "other-fleet"},
        {"ep": 2},
        {"cid": "r-13"},
        {"asts": [kit.HELD]},
        {"aud": ["d:door-18"]},
        {"iat": kit.NOW - 7200, "exp": kit.NOW},
    ),
    kit.BEAT: ({"iss": "other-fleet"}, {"ep": 2}, {"iat": kit.NOW - 7200, "exp": kit.NOW}),
    kit.KEYS: ({"iss": "other-fleet"}, {"ep": 3}, {"ep": 5}, {"exp": kit.NOW}),
}
"""What a rightly signed token of each type may say without being good for this device now."""

_MAKERS: Mapping[str, Callable[[kit.Claims], bytes]] = {
    kit.TRIGGER: lambda claims: kit.trigger_key.token(kit.offer({"ast": kit.STATED} | claims)),
    kit.ARTIFACT: lambda claims: kit.artifact_key.token(kit.statement(claims)),
    kit.COSIGN: lambda claims: kit.several((kit.ann, kit.bob, kit.cat), kit.warrant(claims)),
    kit.BEAT: lambda claims: kit.beat_key.token(kit.beat(claims)),
    kit.KEYS: lambda claims: kit.several(kit.roots[:4], kit.keyset(claims)),
}
DONORS = tuple(
    line
    for typ, changes in ELSEWHERE.items()
    for each in changes
    for line in (*_MAKERS[typ](each).split(b"\n"), *([kit.recalled(each)] if typ == kit.TRIGGER else []))
)
