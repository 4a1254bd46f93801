"""A second opinion on envelope and signature: joserfc, a general verifier of JWS, sees every token that ours sees.

Rules:
- What ours takes, joserfc takes.
- What joserfc takes and ours refuses is one of `EXCEPTIONS`: there ours is stricter on purpose. Each has an example.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from orchestrator.verifier import ARTIFACT, BEAT, COSIGN, KEYS, TRIGGER, PublicKey, Refused, open_token, token
from tests.fuzz.messages import DEVICE
from tests.fuzz.mutants import mutant
from tests.golden import kit, make_vectors, ours

pytestmark = pytest.mark.no_cover  # being traced would double what these take, and other tests cover the code

MUTANTS, PARTS = 20_000, 2
TYPES = (TRIGGER, ARTIFACT, COSIGN, BEAT, KEYS)

Keys = Mapping[str, PublicKey]
Seen = tuple[bytes, Keys]

_keys: dict[tuple[bytes, bytes], ECKey] = {}


def joserfc_key(key: PublicKey) -> ECKey:
    if (key.x, key.y) not in _keys:
        x, y = kit.b64(key.x).decode(), kit.b64(key.y).decode()
        _keys[key.x, key.y] = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    return _keys[key.x, key.y]


def taken_by_joserfc(data: bytes, keys: Keys) -> bool:
    """Say whether joserfc takes a token that one of `keys` signed, the one that its header names."""
    try:
        jws.deserialize_compact(data, lambda found: joserfc_key(keys[found.headers()["kid"]]), algorithms=["ES256"])
    except Exception:  # it documents some and raises others; all of them are a no
        return False
    return True


def refusal(data: bytes, keys: Keys) -> str:
    """Return why our verifier refuses a token as what its key signs, "" if it takes it as anything."""
    codes = {}
    for typ in TYPES:
        try:
            open_token(data, typ, keys)
        except Refused as refused:
            codes[typ] = refused.code
        else:
            return ""
    return codes[_type_of_key(data, keys)]


def _type_of_key(data: bytes, keys: Keys) -> str:
    try:
        return keys[dict(_members(data))["kid"]].typ
    except (ValueError, KeyError, TypeError):
        return TRIGGER


def _members(data: bytes) -> list[tuple[str, Any]]:
    """Return names and values of a header in their order, some of them perhaps twice."""
    members: list[tuple[str, Any]] = json.loads(_decoded(data.split(b".")[0]), object_pairs_hook=list)
    return members


def _names(data: bytes) -> list[str]:
    return sorted(name for name, _ in _members(data))


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _twin() -> bytes:
    signed, _, signature = kit.beat_key.token(kit.beat()).rpartition(b".")
    raw = _decoded(signature)
    s = kit.ORDER - int.from_bytes(raw[32:], "big")
    return signed + b"." + kit.b64(raw[:32] + s.to_bytes(32, "big"))


def _headed(header: bytes) -> bytes:
    return kit.beat_key.token(kit.beat(), header=header)


def _unencoded() -> bytes:
    """Return a token of RFC 7797, whose payload stands there as it is."""
    header = kit.b64(BEAT_HEADER[:-1] + b',"b64":false,"crit":["b64"]}')
    signed = header + b'.{"v":1}'
    return signed + b"." + kit.b64(kit.beat_key.sign(signed))


BEAT_HEADER = kit.beat_key.header()
OURS = ["alg", "kid", "typ"]
_ELSEWHERE = {"artifact-1": replace(DEVICE.keys["artifact-1"], hw=("esp32-s3",))}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that joserfc takes and our verifier refuses.

    Attributes:
        codes: reasons that ours gives, with a space between.
        example: such a token.
        when: whether a token that is refused with one of the codes is such a one.
        keys: keys that the example is shown with.
    """

    codes: str
    example: bytes
    when: Callable[[bytes], bool] = lambda _: True
    keys: Keys = field(default_factory=lambda: DEVICE.keys)


EXCEPTIONS: Mapping[str, Difference] = {
    "the twin with the high s": Difference("high_s", _twin()),
    "what the payload says": Difference(
        "bad_json duplicate_name bad_number too_deep missing_field bad_field unknown_critical unsupported_act",
        kit.beat_key.token(b'{"v":1.0,"v":NaN}'),
    ),
    "a key of another type": Difference("wrong_type", _headed(kit.beat_key.header(TRIGGER))),
    "an artifact key for other models": Difference(
        "key_scope", kit.artifact_key.token(kit.statement()), keys=_ELSEWHERE
    ),
    "length": Difference("too_long", kit.beat_key.token(kit.beat({"x": "y" * 1200})), lambda data: len(data) > 1600),
    "an empty payload": Difference("bad_base64", kit.beat_key.token(b""), lambda data: data.split(b".")[1] == b""),
    "a payload that is not encoded": Difference(
        "bad_header", _unencoded(), lambda data: ("b64", False) in _members(data)
    ),
    "a name twice in the header": Difference(
        "bad_header",
        _headed(BEAT_HEADER.replace(b'{"alg"', b'{"alg":"none","alg"')),
        lambda data: len({*_names(data)}) < len(_names(data)),
    ),
    "further names in the header": Difference(
        "bad_header",
        _headed(BEAT_HEADER[:-1] + b',"jku":"https://evil.test/keys"}'),
        lambda data: {*_names(data)} > {*OURS} and "b64" not in _names(data),
    ),
    "no type in the header": Difference(
        "bad_header", _headed(b'{"alg":"ES256","kid":"beat-1"}'), lambda data: _names(data) == ["alg", "kid"]
    ),
    "a type of somebody else": Difference(
        "bad_header",
        _headed(kit.beat_key.header("JWT")),
        lambda data: _names(data) == OURS and dict(_members(data))["typ"] not in TYPES,
    ),
    "the same header written otherwise": Difference(
        "bad_header",
        _headed(BEAT_HEADER.replace(b":", b": ")),
        lambda data: _names(data) == OURS and dict(_members(data))["typ"] in TYPES,
    ),
}


def kinds(data: bytes, code: str) -> list[str]:
    """Return the exceptions that a token falls under that joserfc takes and ours refuses with `code`."""
    return [name for name, each in EXCEPTIONS.items() if code in each.codes.split() and each.when(data)]


def compare(seen: Iterable[Seen]) -> Counter[str]:
    """Return how often both agree (`both`, `none`) and how often each exception came; fails where they do not."""
    found: Counter[str] = Counter()
    for data, keys in seen:
        code, general = refusal(data, keys), taken_by_joserfc(data, keys)
        assert code or general, f"joserfc refuses what ours takes: {data!r}"
        if code and general:
            which = kinds(data, code)
            assert which, f"joserfc takes what ours refuses as {code}: {data!r}"
            found.update(which)
        else:
            found["none" if code else "both"] += 1
    return found


def tokens(data: bytes) -> Iterator[bytes]:
    """Return the lines of a message; those without a payload also with that of the line before them that has one."""
    payload = b""
    for line in data.split(b"\n"):
        yield line
        parts = line.split(b".")
        if len(parts) == 3:
            payload = parts[1] or payload
            if not parts[1]:
                yield b".".join((parts[0], payload, parts[2]))


def golden() -> Iterator[Seen]:
    for vector in make_vectors.read():
        if vector["call"] in ("bundle", "keyset", "beat"):
            keys = ours.read_device(vector["device"]).keys
            for data in tokens(vector["bundle"].encode("latin-1")):
                yield data, keys


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_exception_is_one(name: str) -> None:
    each = EXCEPTIONS[name]
    code = refusal(each.example, each.keys)
    assert code in each.codes.split()
    assert taken_by_joserfc(each.example, each.keys)
    assert kinds(each.example, code) == [name]


def test_golden_vectors() -> None:
    found = compare(golden())
    assert found["both"] > 500
    assert found["none"] > 50
    assert set(found) - {"both", "none"} <= set(EXCEPTIONS)


@pytest.mark.parametrize("part", range(PARTS))
def test_mutants(part: int) -> None:
    numbers = range(part * MUTANTS // PARTS, (part + 1) * MUTANTS // PARTS)
    found = compare((data, DEVICE.keys) for number in numbers for data in tokens(mutant(number).data))
    assert found["both"] > 1000
    assert found["none"] > 5000
    assert set(EXCEPTIONS) - set(found) <= {"an artifact key for other models", "an empty payload", "length"}


def test_a_weaker_verifier_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "_check_signature", lambda *_: None)
    with pytest.raises(AssertionError, match="joserfc refuses what ours takes"):
        compare((data, DEVICE.keys) for number in range(1000) for data in tokens(mutant(number).data))


def test_a_stricter_verifier_is_noticed() -> None:
    monday = kit.beat_key.token(kit.beat())
    assert compare([(monday, DEVICE.keys)]) == {"both": 1}
    assert compare([(monday, {})]) == {"none": 1}
    assert kinds(monday, "bad_signature") == []
