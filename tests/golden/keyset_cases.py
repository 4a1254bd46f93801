"""Keysets: every trick of a rotation, the documents of provisioning, and what must be taken (T7, T23, valid)."""

from __future__ import annotations

from typing import Any

from tests.golden.kit import (
    DROP,
    HELD,
    HOLDERS,
    IMAGE,
    KEYS,
    NOW,
    ORDER,
    SECURED,
    Claims,
    Key,
    Vector,
    ann,
    ann_again,
    artifact_key,
    b64,
    beat_key,
    bob,
    bundle,
    cat,
    compact,
    component,
    device,
    edited,
    keyset,
    refused,
    roots,
    second_artifact_key,
    several,
    stranger_key,
    token_hash,
    trigger_key,
)

ONE, TWO, THREE, FOUR, FIVE = roots[:5]
REST = (trigger_key, artifact_key, beat_key, ann, bob, cat)
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


def _no(reason: str, name: str, why: str, data: bytes, state: dict[str, Any] | None = None,
        clock: int | None = NOW) -> Vector:  # fmt: skip
    return refused(reason, name, why, data, state, clock, "keyset")


def _with(*keys: Key, **changes: Any) -> Claims:
    return keyset({"keys": [key.public for key in (*REST, *keys)], **changes})


def _plus(*entries: Claims) -> Claims:
    return keyset({"keys": [*keyset()["keys"], *entries]})


def _named(entry: Claims, **changes: Any) -> Claims:
    return edited(entry, changes)


def _three_of_five(ep: int) -> dict[str, Any]:
    return {"keys": [key.public for key in (*REST, *roots[:5])], "need": {"root": 3, "cosign": 2}, "ep": ep}


def rotations() -> list[Vector]:
    good = several((TWO, THREE), keyset())
    lines = good.split(b"\n")
    alias = Key("root-9", KEYS)
    alias._key, alias.x, alias.y = TWO._key, TWO.x, TWO.y
    forged = Key("root-3", KEYS)
    forged._key = stranger_key._key
    wide = SECURED | {"keys": _three_of_five(3)["keys"], "need_root": 3}
    five = keyset(_three_of_five(4))
    raw = TWO.sign(lines[0].rpartition(b".")[0])
    high = (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    twin = lines[0].rpartition(b".")[0] + b"." + b64(raw[:32] + high)
    inline = several((TWO,), keyset()) + b"\n" + several((THREE,), keyset())
    negated = _named(
        TWO.public, kid="root-9", y=b64((PRIME - int.from_bytes(TWO.y, "big")).to_bytes(32, "big")).decode()
    )
    crowd = several([*roots, Key("root-10", KEYS)], keyset())
    return [
        _no("wrong_version", "skip-a-version", "version 5 does not follow 3", several((TWO, THREE), keyset({"ep": 5}))),
        _no("wrong_version", "replay-held", "the version held once more", several((TWO, THREE), keyset({"ep": 3}))),
        _no("wrong_version", "replay-older", "an older version", several((TWO, THREE), keyset({"ep": 2}))),
        _no("wrong_version", "largest-version", "a version to end all versions",
            several((TWO, THREE), keyset({"ep": 2**53 - 1}))),
        _no("wrong_version", "replay-after-rotation", "the keyset taken comes again", good, {"ep": 4}),
        _no("wrong_issuer", "other-deployment", "made for staging", several((TWO, THREE), keyset({"iss": "staging"}))),
        _no("too_few_signers", "one-of-two", "one root key alone", several((TWO,), keyset())),
        _no("too_few_signers", "two-of-three", "two of three that must", several((ONE, TWO), five), wide),
        _no("bad_signature", "three-of-five-one-bad", "two good signatures and a forged one",
            several((ONE, TWO, forged), five), wide),
        _no("bad_signature", "four-of-five-one-bad", "a forged line spoils enough good ones",
            several((ONE, TWO, FOUR, forged), five), wide),
        _no("too_few_signers", "only-old", "the new root keys did not agree", several((ONE, TWO), keyset())),
        _no("too_few_signers", "only-new", "the old root keys did not agree",
            several((FOUR, FIVE), _with(THREE, FOUR, FIVE))),
        _no("too_few_signers", "new-keys-vouch-for-themselves", "a takeover: one old key and two new ones",
            several((ONE, FOUR, FIVE), _with(THREE, FOUR, FIVE))),
        _no("too_few_signers", "higher-threshold-unmet", "the new threshold is three",
            several((TWO, THREE), keyset({"need": {"root": 3, "cosign": 2}}))),
        _no("signed_twice", "same-line-twice", "one signature counted twice", lines[0] + b"\n" + _detached(lines[0])),
        _no("signed_twice", "same-key-twice", "the twin signature of the same key",
            lines[0] + b"\n" + _detached(twin)),
        _no("signed_twice", "three-lines-two-keys", "the third line is the second again", good + b"\n" + lines[1]),
        _no("signed_twice", "alias", "one key under two names, one in the old keyset and one in the new",
            several((ONE, TWO, alias), _with(THREE, alias, FOUR))),
        _no("bad_keys", "duplicate-point", "one root key under two names",
            several((TWO, THREE), _with(TWO, alias, THREE))),
        _no("bad_keys", "negated-point", "whoever knows d knows n - d too",
            several((TWO, THREE), _plus(negated))),
        _no("bad_keys", "duplicate-kid", "one name for two keys",
            several((TWO, THREE), _plus(_named(FIVE.public, kid="root-2")))),
        _no("bad_keys", "root-key-triggers", "one key for two types",
            several((TWO, THREE), _plus(_named(TWO.public, kid="t", typ="ota-trigger+jws")))),
        _no("bad_keys", "off-the-curve", "a point that is none",
            several((TWO, THREE), _plus(_named(FIVE.public, y=IMAGE)))),
        _no("bad_field", "threshold-zero", "nobody must sign",
            several((TWO, THREE), keyset({"need": {"root": 0, "cosign": 2}}))),
        _no("bad_field", "cosign-threshold-zero", "no person must sign",
            several((TWO, THREE), keyset({"need": {"root": 2, "cosign": 0}}))),
        _no("bad_field", "threshold-nine", "more than lines allow",
            several((TWO, THREE), keyset({"need": {"root": 9, "cosign": 2}}))),
        _no("bad_number", "threshold-negative", "fewer than nobody",
            several((TWO, THREE), compact(keyset()).replace(b'"root":2', b'"root":-1'))),
        _no("missing_field", "threshold-missing", "nothing about root keys",
            several((TWO, THREE), keyset({"need": {"cosign": 2}}))),
        _no("missing_field", "need-missing", "nothing about thresholds", several((TWO, THREE), keyset({"need": DROP}))),
        _no("missing_field", "iat-missing", "not dated", several((TWO, THREE), keyset({"iat": DROP}))),
        _no("need_unmet", "too-few-roots", "the last keyset ever: its threshold cannot be met",
            several((TWO, THREE), _with(TWO, THREE, need={"root": 3, "cosign": 2}))),
        _no("need_unmet", "no-roots", "no root keys at all", several((TWO, THREE), _with())),
        _no("need_unmet", "one-person-two-keys", "two cosigner keys, but one person",
            several((TWO, THREE), keyset({"keys": [k.public for k in (trigger_key, ann, ann_again, TWO, THREE)]}))),
        _no("key_field", "person-missing", "a cosigner key without its person",
            several((TWO, THREE), _plus(_named(ann_again.public, who=DROP)))),
        _no("key_field", "root-with-person", "a root key is counted by its point",
            several((TWO, THREE), _plus(_named(FIVE.public, who="eve")))),
        _no("key_field", "trigger-with-hardware", "only artifact keys have a scope",
            several((TWO, THREE), _plus(_named(FIVE.public, hw=["esp32"])))),
        _no("key_field", "ends-before-begin", "a key that is never good",
            several((TWO, THREE), _plus(_named(FIVE.public, nbf=9, exp=9)))),
        _no("bad_field", "no-keys", "no keys", several((TWO, THREE), keyset({"keys": []}))),
        _no("bad_field", "keys-named-by-name", "an object instead of an array",
            several((TWO, THREE), keyset({"keys": {"root-2": TWO.public}}))),
        _no("bad_field", "role-unknown", "a role nobody defined",
            several((TWO, THREE), _plus(_named(FIVE.public, typ="ota-boot+jws")))),
        _no("bad_field", "role-path", "a role that climbs out of its directory",
            several((TWO, THREE), _plus(_named(FIVE.public, typ="../root")))),
        _no("bad_field", "person-capitals", "Ann is not another ann",
            several((TWO, THREE), _plus(_named(ann_again.public, who="Ann")))),
        _no("bad_field", "ends-before-issue", "over before it began",
            several((TWO, THREE), keyset({"exp": NOW - 60}))),
        _no("unknown_critical", "critical-unknown", "something that must be understood",
            several((TWO, THREE), keyset({"crit": ["revoked"]}))),
        _no("unknown_key", "third-line-stranger", "two good lines and one of nobody",
            several((TWO, THREE, Key("root-9", KEYS)), keyset())),
        _no("wrong_role", "trigger-key-as-root", "the online key votes",
            several((TWO, trigger_key), keyset(), trigger_1=trigger_key.header(KEYS))),
        _no("wrong_role", "new-trigger-key-as-root", "a key that comes with another role votes",
            several((TWO, THREE, second_artifact_key), _plus(second_artifact_key.public),
                    artifact_2=second_artifact_key.header(KEYS))),
        _no("wrong_type", "second-line-warrant", "the second line is of another type",
            several((TWO, ann), keyset())),
        _no("not_detached", "payload-in-second-line", "the second line brings its own payload", inline),
        _no("bad_base64", "payload-in-no-line", "no line has a payload",
            _detached(lines[0]) + b"\n" + lines[1]),
        _no("too_many_lines", "nine-lines", "more lines than a device keeps", crowd),
        _no("not_a_token", "newline-behind", "a newline behind the last line", good + b"\n"),
        _no("too_long", "payload-4097", "one byte beyond the limit of a keyset",
            several((TWO, THREE), compact(keyset()) + b" " * (4097 - len(compact(keyset()))))),
        _no("too_long", "line-6145", "one byte beyond the limit of a line", b"A" * 6145),
        _no("bad_signature", "other-payload", "signatures of another keyset",
            _payload(lines[0], several((TWO,), keyset({"ep": 5}))) + b"\n" + lines[1]),
        _no("root_required", "no-threshold-held", "a device without a threshold takes none", good, {"need_root": 0}),
        _no("root_required", "no-roots-held", "a device without root keys takes none", good,
            {"keys": [key.public for key in REST]}),
        _no("keyset_expired", "expired", "held back too long", several((TWO, THREE), keyset({"exp": NOW}))),
    ]  # fmt: skip


def _detached(line: bytes) -> bytes:
    header, _, signature = line.split(b".")
    return header + b".." + signature


def _payload(line: bytes, other: bytes) -> bytes:
    header, _, signature = line.split(b".")
    return header + b"." + other.split(b".")[1] + b"." + signature


def _document(**changes: Any) -> bytes:
    keys = [trigger_key.public, artifact_key.public]
    return compact(edited({"v": 1, "iss": "test-fleet", "ep": 3, "keys": keys}, changes))


def documents() -> list[Vector]:
    trigger, artifact = trigger_key.public, artifact_key.public
    rows: list[tuple[str, str, str, bytes]] = [
        ("bad_keys", "key-twice", "the same entry twice", _document(keys=[trigger, trigger])),
        ("bad_keys", "kid-twice", "one name, two keys", _document(keys=[trigger, _named(artifact, kid="trigger-1")])),
        ("bad_keys", "point-twice", "one key, two names", _document(keys=[trigger, _named(trigger, kid="alias")])),
        ("bad_keys", "two-roles", "one key for two types",
         _document(keys=[trigger, _named(trigger, kid="alias", typ="ota-artifact+jws")])),
        ("bad_keys", "off-the-curve", "a point that is none", _document(keys=[_named(trigger, y=IMAGE)])),
        ("bad_keys", "too-long", "more than 8,192 bytes", _document() + b" " * 8192),
        ("bad_field", "no-keys", "no keys", _document(keys=[])),
        ("bad_field", "seventeen-keys", "too many keys", _document(keys=[trigger] * 17)),
        ("bad_field", "coordinate-short", "31 bytes", _document(keys=[_named(trigger, x=trigger["x"][:42])])),
        ("bad_field", "threshold-zero", "nobody must sign", _document(need={"root": 0, "cosign": 1})),
        ("bad_field", "epoch-zero", "there is no epoch 0", _document(ep=0)),
        ("bad_field", "ends-before-issue", "over before it began", _document(iat=9, exp=9)),
        ("need_unmet", "root-keys-missing", "a threshold without root keys", _document(need={"root": 1, "cosign": 1})),
        ("key_field", "cosigner-without-person", "whose key is it?",
         _document(keys=[trigger, _named(ann.public, who=DROP)])),
        ("unknown_critical", "critical-unknown", "something that must be understood", _document(crit=["pin"])),
        ("missing_field", "deployment-missing", "no deployment", _document(iss=DROP)),
        ("duplicate_name", "name-twice", "the epoch twice", b'{"ep":3,' + _document()[1:]),
        ("bad_json", "empty", "nothing", b""),
        ("too_deep", "deep", "far too deep", b'{"v":' + b"[" * 4000 + b"]" * 4000 + b"}"),
    ]  # fmt: skip
    return [refused(reason, f"document-{name}", why, data, call="document") for reason, name, why, data in rows]


def clocks() -> list[Vector]:
    limited = {"keys": [_limited(key) for key in HOLDERS]}
    later = NOW + 86_400
    return [
        refused("key_not_yet", "key-not-yet", "the successor signs too early", bundle(), limited, NOW - 86_401),
        refused("key_not_yet", "key-clock-1970", "a clock at 1970 is a clock; without one, say so",
                bundle(), limited, 0),
        refused("key_expired", "key-over", "the key is over at this very second", bundle({"exp": later + 9}), limited,
                later),
        refused("key_expired", "key-ten-years-on", "a clock set far ahead", bundle(), limited, NOW + 315_360_000),
        refused("key_expired", "statement-key-over", "the artifact key is over",
                bundle({"exp": later + 9}),
                {"keys": [_limited(key) if key is artifact_key else key.public for key in HOLDERS]}, later),
        _no("key_expired", "root-key-over", "a root key that is over", several((TWO, THREE), keyset()), limited, later),
        _no("key_not_yet", "root-key-not-yet", "a new root key before its time",
            several((TWO, THREE, FOUR), keyset({"keys": [*_with(TWO, THREE)["keys"], _named(FOUR.public,
                    nbf=NOW + 1)]}))),
        _no("keyset_expired", "keyset-2106", "beyond 32 bits",
            several((TWO, THREE), keyset({"exp": 2**32})), None, 2**32),
    ]  # fmt: skip


def _limited(key: Key) -> Claims:
    return key.public | {"nbf": NOW - 86_400, "exp": NOW + 86_400}


def _yes(name: str, why: str, data: bytes, state: dict[str, Any] | None = None, clock: int | None = NOW,
         claims: Claims | None = None) -> Vector:  # fmt: skip
    said = claims or keyset()
    expected = {
        "kind": "keyset",
        "ep": said["ep"],
        "kids": sorted(entry["kid"] for entry in said["keys"]),
        "need_root": said["need"]["root"],
        "need_cosign": said["need"]["cosign"],
        "floor": 0,
        "beat_iat": 0,
        "components": [
            part | {"seq": 0, "held": "", "att": "", "recall": ""} for part in (SECURED | (state or {}))["components"]
        ],
    }
    return Vector(f"keyset-{name}", why, data, expected, state or {}, clock, "keyset")


def _signed(name: str, why: str, keys: tuple[Key, ...], claims: Claims, **more: Any) -> Vector:
    return _yes(name, why, several(keys, claims), claims=claims, **more)


def taken() -> list[Vector]:
    pair = (TWO, THREE)
    held = {"seq": 101, "held": HELD, "att": "7.1"}
    whole = [key.public for key in (*REST, *roots[:3])]
    scoped = _named(artifact_key.public, hw=["esp32-c3"], nbf=NOW, exp=NOW + 9)
    successor = Key("trigger-2", "ota-trigger+jws").public | {"nbf": NOW + 86_400}
    padded = compact(keyset()) + b" " * (4096 - len(compact(keyset())))
    single = SECURED | {"need_root": 1}
    full = keyset({"keys": [key.public for key in (*REST, *roots, ann_again, second_artifact_key)]})
    return [
        _signed("rotation", "root 1 goes, root 4 comes: roots 2 and 3 are in both", pair, keyset()),
        _signed("rotation-order", "lines in another order", (THREE, TWO), keyset()),
        _signed("rotation-three", "more than must", (ONE, TWO, THREE), keyset()),
        _signed("rotation-four", "two only in the old, one in both, one only in the new",
                (ONE, TWO, THREE, FOUR), keyset()),
        _signed("disjoint-roots", "all root keys change: two of the old and two of the new", (ONE, TWO, FOUR, FIVE),
                _with(FOUR, FIVE)),
        _signed("new-first", "the payload is in the line of a new key", (FOUR, TWO, THREE), keyset()),
        _signed("same-keys", "nothing but the version changes: every sequence starts anew",
                pair, keyset({"keys": whole})),
        _signed("threshold-up", "three from now on", (TWO, THREE, FOUR), keyset({"need": {"root": 3, "cosign": 2}})),
        _signed("threshold-down", "one from now on", pair, keyset({"need": {"root": 1, "cosign": 1}})),
        _signed("one-of-one", "the smallest threshold",
                (TWO,), keyset({"need": {"root": 1, "cosign": 2}}), state=single),
        _signed("eight-of-eight", "the largest threshold", tuple(roots), full | {"need": {"root": 8, "cosign": 3}},
                state={"keys": [key.public for key in (trigger_key, *roots)], "need_root": 8}),
        _signed("sixteen-keys", "as many keys as there may be", pair, full),
        _signed("no-cosigners", "no persons: no emergency", pair,
                keyset({"keys": [key.public for key in (trigger_key, artifact_key, TWO, THREE)]})),
        _signed("trigger-key-revoked", "no trigger key at all: nothing more until the next keyset", pair,
                keyset({"keys": [key.public for key in (artifact_key, TWO, THREE)]})),
        _signed("successor", "the next trigger key is published before its time", pair,
                _plus(successor)),
        _signed("scope", "an artifact key for one model and some seconds", pair,
                keyset({"keys": [trigger_key.public, scoped, TWO.public, THREE.public]})),
        _signed("marks-empty", "what was held is forgotten, what runs is not", pair, keyset(),
                state=device(**held, rel=5, sha256=IMAGE, recall=HELD)),
        _signed("floor-falls", "the floor of the old epoch means nothing in the new", pair, keyset(),
                state={"floor": 2**53 - 1, "beat_iat": 2**53 - 1}),
        _signed("recovery", "a mark at the end of all numbers is no end", pair, keyset(), state=device(seq=2**53 - 1)),
        _signed("last-second", "one second is left", pair, keyset({"exp": NOW + 1})),
        _signed("expired-no-clock", "without a clock it does not expire",
                pair, keyset({"iat": 1, "exp": 2}), clock=None),
        _signed("issued-in-the-future", "the clock is slow", pair, keyset({"iat": NOW + 86_400})),
        _signed("key-times-no-clock", "without a clock keys have no times", pair, keyset(), clock=None,
                state={"keys": [_limited(key) for key in HOLDERS]}),
        _signed("key-times", "within the time of every key", pair, keyset(),
                state={"keys": [_limited(key) for key in HOLDERS]}),
        _signed("unknown-names", "unknown names are ignored", pair, keyset({"note": "spring", "revoked": ["root-1"]})),
        _signed("critical-known", "everything demanded is known", pair, keyset({"crit": ["need", "keys"]})),
        _yes("payload-4096", "the longest payload", several(pair, padded)),
    ]  # fmt: skip


def provisioned() -> list[Vector]:
    old = _document()
    holders = [key.public for key in HOLDERS]
    rows: list[tuple[str, str, bytes, list[str], int, int]] = [
        ("old", "as it always was: no keyset, no emergency", old, ["artifact-1", "trigger-1"], 0, 0),
        ("one-key", "one key", _document(keys=[trigger_key.public]), ["trigger-1"], 0, 0),
        ("need", "thresholds and persons", _document(keys=holders, need={"root": 2, "cosign": 2}),
         sorted(key.kid for key in HOLDERS), 2, 2),
        ("all-roots", "every root key must sign", _document(keys=holders, need={"root": 3, "cosign": 3}),
         sorted(key.kid for key in HOLDERS), 3, 3),
        ("no-cosigners", "keysets, but no emergency",
         _document(keys=[trigger_key.public, ONE.public], need={"root": 1, "cosign": 2}), ["root-1", "trigger-1"], 1,
                   2),
        ("signed-payload", "the payload of a keyset is such a document",
         compact(keyset({"ep": 3, "exp": NOW + 9})), sorted(entry["kid"] for entry in keyset()["keys"]), 2, 2),
        ("white-space", "people may read it", _document().replace(b",", b",\n  "), ["artifact-1", "trigger-1"], 0, 0),
        ("key-times", "keys with a time and a scope",
         _document(keys=[_named(artifact_key.public, hw=["esp32-c3"], nbf=1, exp=2)]), ["artifact-1"], 0, 0),
    ]  # fmt: skip
    vectors = []
    for name, why, data, kids, root, cosign in rows:
        expected = {"kind": "document", "iss": "test-fleet", "ep": 3, "kids": kids}
        expected |= {"need_root": root, "need_cosign": cosign}
        vectors.append(Vector(f"document-{name}", why, data, expected, call="document"))
    return vectors


def afterwards() -> list[Vector]:
    """Return triggers as devices judge them after the rotation."""
    keys = [_named(entry) for entry in keyset()["keys"]]
    rotated = {"ep": 4, "keys": keys, **device(seq=0)}
    first = bundle({"ep": 4, "seq": 1})
    after = component(seq=1, held=token_hash(first.split(b"\n")[0]), att="7.1")
    expected = {"kind": "install", "token_hash": after["held"], "component": after}
    return [Vector("first-of-the-epoch", "seq starts at 1 again", first, expected, rotated)]


GROUPS = {
    "T23-keyset": rotations,
    "T23-document": documents,
    "T07-key-times": clocks,
    "valid-keyset": taken,
    "valid-document": provisioned,
    "valid-rotated": afterwards,
}
