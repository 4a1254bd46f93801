"""Warrants, beats, scopes and half a delivery (T3, T4, T6, T7, T10, T20, T22, valid); the device is `SECURED`."""

from __future__ import annotations

from typing import Any

from tests.golden.kit import (
    ARTIFACT,
    BEAT,
    COSIGN,
    DROP,
    HOLDERS,
    IMAGE,
    KEYS,
    NOW,
    OTHER_IMAGE,
    SECURED,
    STATED,
    TRIGGER,
    Claims,
    Key,
    Vector,
    ann,
    ann_again,
    artifact_key,
    beat,
    beat_key,
    bob,
    bundle,
    cat,
    compact,
    component,
    device,
    emergency,
    keyset,
    offer,
    recall,
    recalled,
    refused,
    root_key,
    roots,
    second_artifact_key,
    several,
    statement,
    stranger_key,
    token_hash,
    trigger_key,
    warrant,
)

DAY_S = 86_400


def _limited(chosen: Key, **limits: Any) -> dict[str, Any]:
    return {"keys": [key.public | (limits if key is chosen else {}) for key in HOLDERS]}


def _without(*gone: Key) -> dict[str, Any]:
    return {"keys": [key.public for key in HOLDERS if key not in gone]}


def _pair(changes: Claims) -> bytes:
    return several((ann, bob), warrant(changes))


def emergencies() -> list[Vector]:
    good = several((ann, bob), warrant())
    first, second = good.split(b"\n")
    detached = b"..".join((first.split(b".")[0], first.split(b".")[2]))
    forged = Key("cosign-2", COSIGN)
    forged._key = stranger_key._key
    rows: list[tuple[str, str, str, bytes]] = [
        ("too_few_signers", "one-of-two", "one person alone", several((ann,), warrant())),
        ("too_few_signers", "one-person-two-keys", "two keys of one person", several((ann, ann_again), warrant())),
        ("signed_twice", "one-key-twice", "the same line again", first + b"\n" + detached),
        ("signed_twice", "third-line-again", "two persons, and one of them again", good + b"\n" + second),
        ("bad_signature", "forged-second", "the second signature is forged", several((ann, forged), warrant())),
        ("bad_signature", "forged-third", "a forged line spoils enough good ones",
         several((ann, cat, forged), warrant())),
        ("bad_signature", "other-payload", "signatures over another warrant",
         _pair({"cid": "r-11"}).split(b"\n")[0] + b"\n" + second),
        ("unknown_key", "stranger", "a cosigner that this device does not know",
         several((ann, Key("cosign-9", COSIGN)), warrant())),
        ("wrong_role", "trigger-key-cosigns", "the online key allows its own emergency",
         several((ann, trigger_key), warrant(), trigger_1=trigger_key.header(COSIGN))),
        ("wrong_role", "artifact-key-cosigns", "the artifact key is no person",
         several((ann, artifact_key), warrant(), artifact_1=artifact_key.header(COSIGN))),
        ("wrong_role", "root-key-cosigns", "a root key is no person",
         several((ann, root_key), warrant(), root_1=root_key.header(COSIGN))),
        ("wrong_type", "second-line-trigger", "the second line is of another type",
         several((ann, trigger_key), warrant())),
        ("not_detached", "payload-in-second-line", "every line brings a payload",
         several((ann,), warrant()) + b"\n" + several((bob,), warrant({"most": 1}))),
        ("bad_base64", "payload-in-no-line", "no line has a payload", detached + b"\n" + second),
        ("too_many_lines", "nine-lines", "more lines than a device keeps",
         several([ann, bob, cat, ann_again, *(Key(f"cosign-{n}", COSIGN) for n in range(5, 10))], warrant())),
        ("not_a_token", "newline-behind", "a newline behind the warrant", good + b"\n"),
        ("too_long", "payload-1201", "one byte beyond the limit of a payload",
         several((ann, bob), compact(warrant()) + b" " * (1201 - len(compact(warrant()))))),
        ("warrant_field", "other-rollout", "cosigned for another rollout", _pair({"cid": "r-11"})),
        ("warrant_field", "other-statement", "cosigned for another artifact",
         _pair({"asts": [IMAGE, OTHER_IMAGE]})),
        ("warrant_field", "other-deployment", "cosigned for staging", _pair({"iss": "staging"})),
        ("warrant_field", "other-epoch", "cosigned under the epoch before", _pair({"ep": 2})),
        ("warrant_field", "other-audience", "cosigned for another model",
         _pair({"aud": ["m:esp32", "g:us", "d:door-18"]})),
        ("warrant_field", "audience-kind", "our model as a group", _pair({"aud": ["g:esp32-c3"]})),
        ("warrant_expired", "expired", "over at this very second", _pair({"exp": NOW})),
        ("bad_field", "thirty-one-days", "longer than 30 days",
         _pair({"exp": NOW - 600 + 30 * DAY_S + 1})),
        ("bad_field", "nobody", "for no device", _pair({"most": 0})),
        ("bad_field", "no-statements", "for no artifact", _pair({"asts": []})),
        ("bad_field", "nine-statements", "for too many artifacts", _pair({"asts": [STATED] * 9})),
        ("bad_field", "no-audience", "nobody is not everybody", _pair({"aud": []})),
        ("bad_field", "wildcard", "there are no wildcards", _pair({"aud": ["m:*"]})),
        ("missing_field", "endless", "no end", _pair({"exp": DROP})),
        ("missing_field", "unbounded", "no largest number", _pair({"most": DROP})),
        ("unknown_critical", "critical-unknown", "something that must be understood",
         _pair({"crit": ["need"]})),
    ]  # fmt: skip
    lines = emergency().split(b"\n")
    return [
        *(refused(reason, f"warrant-{name}", why, emergency(data)) for reason, name, why, data in rows),
        refused("warrant_missing", "warrant-missing", "the online key alone makes no emergency", bundle({"urg": 3})),
        refused("warrant_missing", "warrant-missing-no-clock", "nor without a clock", bundle({"urg": 3}), None, None),
        refused("not_a_token", "warrant-line-empty", "an empty third line", bundle({"urg": 3}) + b"\n"),
        refused("wrong_type", "warrant-before-statement", "warrant first",
                b"\n".join([lines[0], *lines[2:], lines[1]])),
        refused("bad_bundle", "warrant-not-needed", "lines that nobody checks are refused",
                bundle({"urg": 2}) + b"\n" + good),
        refused("bad_bundle", "warrant-behind-recall", "a recall stands alone", recalled() + b"\n" + good),
        refused("cosign_required", "threshold-not-held", "a device without a threshold takes no emergency",
                bundle({"urg": 3}), {"need_cosign": 0}),
        refused("cosign_required", "cosigners-not-held", "a device without cosigners takes no emergency",
                bundle({"urg": 3}), _without(ann, bob, cat, ann_again)),
        refused("bad_bundle", "warrant-cosigners-not-held", "a warrant that nobody can check", emergency(),
                _without(ann, bob, cat, ann_again)),
        refused("unknown_key", "warrant-revoked", "a cosigner whose key was revoked", emergency(), _without(bob)),
        refused("key_expired", "warrant-key-over", "a cosigner whose time is over",
                emergency(), _limited(bob, exp=NOW)),
        refused("too_few_signers", "warrant-three-needed", "two of three that must", emergency(), {"need_cosign": 3}),
        refused("downgrade", "emergency-downgrade", "persons cannot do what the statement forbids",
                emergency(None, {"rel": 3}, {"rel": 3})),
    ]  # fmt: skip


def _typed(place: str) -> list[tuple[str, bytes, bytes]]:
    """Return for each type other than that of `place` its name, a token of it, and one of `place` by its key."""
    makers: dict[str, tuple[Key, Claims]] = {
        TRIGGER: (trigger_key, offer({"ast": STATED})),
        ARTIFACT: (artifact_key, statement()),
        COSIGN: (ann, warrant()),
        BEAT: (beat_key, beat()),
        KEYS: (roots[1], keyset()),
    }
    claims = makers[place][1]
    return [
        (typ[4:-4], key.token(said), key.token(claims, header=key.header(place)))
        for typ, (key, said) in makers.items()
        if typ != place
    ]


def types() -> list[Vector]:
    vectors = []
    for word, token, forged in _typed(COSIGN):
        vectors += [
            refused("wrong_type", f"{word}-as-cosign", "another type in the place of the warrant", emergency(token)),
            refused(
                "wrong_role", f"{word}-key-signs-cosign", "a key of another role signs a warrant", emergency(forged)
            ),
        ]
    for word, token, forged in _typed(BEAT):
        vectors += [
            _beat("wrong_type", f"{word}-as-beat", "another type in the place of the beat", token),
            _beat("wrong_role", f"{word}-key-signs-beat", "a key of another role signs a beat", forged),
        ]
    for word, token, forged in _typed(KEYS):
        why = "a key of another role signs a keyset"
        vectors += [
            refused("wrong_type", f"{word}-as-keys", "another type in the place of the keyset", token, call="keyset"),
            refused("wrong_role", f"{word}-key-signs-keys", why, forged, call="keyset"),
        ]
    return vectors


def _beat(reason: str, name: str, why: str, data: bytes, state: dict[str, Any] | None = None,
          clock: int | None = NOW) -> Vector:  # fmt: skip
    return refused(reason, name, why, data, state, clock, "beat")


def beats() -> list[Vector]:
    good = beat_key.token(beat())
    forged = Key("beat-1", BEAT)
    forged._key = stranger_key._key
    rows: list[tuple[str, str, str, Claims]] = [
        ("beat_expired", "over", "an old beat hides that we are cut off", {"exp": NOW}),
        ("wrong_issuer", "other-deployment", "made for staging", {"iss": "staging"}),
        ("wrong_epoch", "epoch-before", "made under the epoch before", {"ep": 2}),
        ("wrong_epoch", "epoch-after", "made under the epoch after", {"ep": 4}),
        ("bad_field", "eight-days", "longer than 7 days", {"exp": NOW - 60 + 7 * DAY_S + 1}),
        ("bad_field", "ends-before-issue", "over before it began", {"exp": NOW - 60}),
        ("bad_field", "floor-text", "a number as text", {"floor": "90"}),
        ("missing_field", "floor-missing", "no floor", {"floor": DROP}),
        ("missing_field", "seq-missing", "no highest number", {"seq": DROP}),
        ("missing_field", "endless", "no end", {"exp": DROP}),
        ("bad_number", "floor-two-to-53", "a floor beyond all numbers", {"floor": 2**53}),
        ("unknown_critical", "critical-unknown", "something that must be understood", {"crit": ["groups"]}),
    ]
    held = {"floor": 100}
    return [
        *(_beat(reason, f"beat-{name}", why, beat_key.token(beat(change))) for reason, name, why, change in rows),
        _beat("bad_signature", "beat-forged", "anybody may write this", forged.token(beat())),
        _beat("bad_base64", "beat-newline", "a newline behind the beat", good + b"\n"),
        _beat("not_a_token", "beat-twice", "two beats", good + b"\n" + good),
        _beat("not_a_token", "beat-cleared", "a cleared retained topic looks so", b""),
        _beat("unknown_key", "beat-revoked", "the beat key was revoked", good, _without(beat_key)),
        refused("below_floor", "trigger-below-floor", "held back until the floor had risen", bundle(), {"floor": 102}),
        refused("below_floor", "emergency-below-floor", "in an emergency too", emergency(), {"floor": 102}),
        refused("below_floor", "refresh-below-floor", "a new token of the attempt held is below the floor",
                bundle({"seq": 99}), held | device(seq=98, held=IMAGE, att="7.1")),
        refused("below_floor", "below-floor-no-clock", "the floor needs no clock", bundle(), {"floor": 102}, None),
        refused("below_floor", "below-largest-floor", "no number is left", bundle(), {"floor": 2**53 - 1}),
    ]  # fmt: skip


def clocks() -> list[Vector]:
    return [
        _beat("beat_expired", "beat-ten-years-on", "a clock set far ahead", beat_key.token(beat()), None,
              NOW + 315_360_000),
        _beat("beat_expired", "beat-2106", "beyond 32 bits", beat_key.token(beat()), None, 2**32),
        refused("warrant_expired", "warrant-two-days-on", "the trigger lasts, the warrant does not",
                emergency(None, {"exp": NOW + 10 * DAY_S}), None, NOW + 2 * DAY_S),
        refused("expired", "clock-largest", "the largest clock there is", bundle(), None, 2**53 - 1),
    ]  # fmt: skip


def rotated() -> list[Vector]:
    keys = {"ep": 4, "keys": keyset()["keys"], **device(seq=0)}
    return [
        refused("wrong_epoch", "trigger-before-rotation", "made before the rotation", bundle(), keys),
        refused("wrong_epoch", "recall-before-rotation", "recalls too", recalled(), keys),
        refused("wrong_epoch", "emergency-before-rotation", "emergencies too", emergency(), keys),
        refused("warrant_field", "warrant-before-rotation", "a warrant of the epoch before under a trigger of this one",
                emergency(None, {"ep": 4, "seq": 1}), keys),
        refused("bad_signature", "token-of-held-under-new-kid", "the key identifier went to another key",
                bundle(), {"keys": [*_without(trigger_key)["keys"], stranger_key.public | {"kid": "trigger-1"}]}),
        _beat("wrong_epoch", "beat-before-rotation", "and beats", beat_key.token(beat()), keys),
    ]  # fmt: skip


def scopes() -> list[Vector]:
    two_models = bundle(both={"hw": ["esp32-c3", "esp32-c6"]})
    return [
        refused("key_scope", "other-model", "an artifact key for another model", bundle(),
                _limited(artifact_key, hw=["esp32-c6"])),
        refused("key_scope", "one-of-two-models", "the key may sign for one of both models only", two_models,
                _limited(artifact_key, hw=["esp32-c3"])),
        refused("key_scope", "model-prefix", "a prefix of a model is another one", bundle(),
                _limited(artifact_key, hw=["esp32"])),
        refused("key_scope", "scope-refresh", "the scope holds for a refresh too", bundle({"seq": 102}),
                _limited(artifact_key, hw=["esp32-c6"]) | device(seq=101, held=IMAGE, att="7.1")),
        refused("key_expired", "artifact-key-over", "the artifact key is over",
                bundle(), _limited(artifact_key, exp=NOW)),
        refused("key_not_yet", "artifact-key-not-yet", "the next artifact key signs too early", bundle(),
                _limited(artifact_key, nbf=NOW + 1)),
        refused("unknown_key", "artifact-key-revoked", "revoked by the keyset held", bundle(), _without(artifact_key)),
        refused("wrong_role", "artifact-key-recalls", "the artifact key cannot recall",
                artifact_key.token(recall(), header=artifact_key.header(TRIGGER))),
        refused("too_few_signers", "emergency-by-one", "an artifact key and one person make no emergency",
                emergency(several((cat,), warrant()))),
    ]  # fmt: skip


def halves() -> list[Vector]:
    trigger, stated = bundle().split(b"\n")
    urgent = emergency().split(b"\n")
    need_radio = {"req": [{"comp": "radio", "rel": 3}]}
    both = {"req": [{"comp": "radio", "rel": 3}, {"comp": "main", "rel": 4}]}
    halfway = {"components": [component(rel=5, sha256=IMAGE), component(name="radio", rel=2, seq=90)]}
    return [
        refused("statement_missing", "second-line-lost", "only the trigger came through", trigger),
        refused("not_a_token", "second-line-empty", "the second line is empty", trigger + b"\n"),
        refused("not_a_token", "second-line-cut", "cut within the second line", trigger + b"\n" + stated[:90]),
        refused("bad_signature", "last-bytes-lost", "cut within the last signature", trigger + b"\n" + stated[:-2]),
        refused("wrong_type", "first-line-lost", "only the statement came through", stated),
        refused("warrant_missing", "third-line-lost", "the warrant was dropped", b"\n".join(urgent[:2])),
        refused("too_few_signers", "fourth-line-lost", "the second signature was dropped", b"\n".join(urgent[:3])),
        refused("bad_base64", "third-line-first-lost", "the payload of the warrant was dropped",
                b"\n".join([*urgent[:2], urgent[3]])),
        refused("requirement_unmet", "second-artifact-blocked", "main is offered before radio is confirmed",
                bundle(None, need_radio)),
        refused("requirement_unmet", "reboot-in-between", "main is new, radio is not, and the next set comes",
                bundle({"seq": 130, "att": "8.1"}, need_radio, {"rel": 6}), halfway),
        refused("requirement_unmet", "half-of-a-set", "one of two is there", bundle(None, both)),
    ]  # fmt: skip


def _emergency(name: str, why: str, data: bytes, state: dict[str, Any] | None = None, clock: int | None = NOW,
               kind: str = "install", **after: Any) -> Vector:  # fmt: skip
    held = {"seq": 101, "held": token_hash(data.split(b"\n")[0]), "att": "7.1"}
    expected = {"kind": kind, "token_hash": held["held"], "component": component(**(held | after))}
    return Vector(f"emergency-{name}", why, data, expected, state or {}, clock)


def allowed() -> list[Vector]:
    held = {"seq": 101, "held": token_hash(bundle({"urg": 3}).split(b"\n")[0]), "att": "7.1"}
    pair = (ann, bob)
    again = emergency(None, {"seq": 105})
    padded = compact(warrant()) + b" " * (1200 - len(compact(warrant())))
    back, old = {"act": "rollback", "rel": 3}, {"rel": 3, "dn": [4]}
    old_hash = token_hash(artifact_key.token(statement(old)))
    return [
        _emergency("two-persons", "the ordinary emergency", emergency()),
        _emergency("two-other-persons", "any two will do", emergency(several((cat, bob), warrant()))),
        _emergency("three-persons", "more than must", emergency(several((ann, bob, cat), warrant()))),
        _emergency("second-key-of-a-person", "a person may use either key",
                   emergency(several((bob, ann_again), warrant()))),
        _emergency("person-twice", "two keys of one person and another person count two",
                   emergency(several((ann, ann_again, bob), warrant()))),
        _emergency("three-needed", "three that must",
                   emergency(several((ann, bob, cat), warrant())), {"need_cosign": 3}),
        _emergency("one-needed", "one that must", emergency(several((cat,), warrant())), {"need_cosign": 1}),
        _emergency("for-a-group", "for one of our groups", emergency(_pair({"aud": ["g:us", "g:eu"]}))),
        _emergency("for-this-device", "for us alone", emergency(_pair({"aud": ["d:door-17"]}))),
        _emergency("eighth-statement", "the last of eight statements",
                   emergency(_pair({"asts": [*[IMAGE] * 7, STATED]}))),
        _emergency("thirty-days", "the longest warrant", emergency(_pair({"exp": NOW - 600 + 30 * DAY_S}))),
        _emergency("last-second", "one second is left", emergency(_pair({"exp": NOW + 1}))),
        _emergency("no-clock", "without a clock it does not expire", emergency(_pair({"iat": 1, "exp": 2})),
                   None, None),
        _emergency("payload-1200", "the longest payload", emergency(several(pair, padded))),
        _emergency("critical-known", "everything demanded is known", emergency(_pair({"crit": ["most"]}))),
        _emergency("unknown-names", "unknown names are ignored", emergency(_pair({"why": "fire"}))),
        _emergency("rollback", "a rollback in an emergency",
                   emergency(_pair({"asts": [old_hash]}), back, old)),
        _emergency("repeated", "delivered twice", emergency(), device(**held), kind="refresh"),
        _emergency("repeated-late", "again after trigger and warrant are over", emergency(), device(**held),
                   NOW + 3 * DAY_S, "refresh"),
        _emergency("refreshed", "issued again for the attempt held", again, device(**held), kind="refresh", seq=105),
        _emergency("above-floor", "at the floor", emergency(), {"floor": 101}),
        _emergency("cosigner-in-time", "within the time of the key", emergency(), _limited(bob, nbf=NOW, exp=NOW + 1)),
        _emergency("urgency-two-needs-none", "security needs no persons", bundle({"urg": 2})),
        _emergency("scoped-artifact-key", "an artifact key for our model", bundle(),
                   _limited(artifact_key, hw=["esp32-c6", "esp32-c3"])),
        _emergency("second-artifact-key", "the other key is not used", bundle(),
                   {"keys": [*SECURED["keys"], second_artifact_key.public | {"hw": ["esp32"]}]}),
    ]  # fmt: skip


def heard() -> list[Vector]:
    def take(name: str, why: str, floor: int, iat: int, change: Claims | None = None,
             state: dict[str, Any] | None = None, clock: int | None = NOW) -> Vector:  # fmt: skip
        expected = {"kind": "beat", "floor": floor, "beat_iat": iat}
        return Vector(f"beat-{name}", why, beat_key.token(beat(change)), expected, state or {}, clock, "beat")

    later = {"floor": 95, "beat_iat": NOW - 30}
    recall_after = component(seq=102, recall=token_hash(recalled()))
    taken_back = {"kind": "recall", "token_hash": recall_after["recall"], "component": recall_after}
    held = {"seq": 101, "held": token_hash(bundle().split(b"\n")[0]), "att": "7.1"}
    repeated = {"kind": "refresh", "token_hash": held["held"], "component": component(**held)}
    return [
        take("first", "the first beat", 90, NOW - 60),
        take("same", "the same beat again", 90, NOW - 60, state={"floor": 90, "beat_iat": NOW - 60}),
        take("older", "an older beat changes nothing", 95, NOW - 30, {"floor": 120}, later),
        take("lower-floor", "the floor never falls", 95, NOW - 20, {"iat": NOW - 20}, later),
        take("higher-floor", "the floor rises", 120, NOW - 20, {"iat": NOW - 20, "floor": 120}, later),
        take("floor-zero", "all are good", 0, NOW - 60, {"floor": 0}),
        take("floor-largest", "none is good until the next keyset", 2**53 - 1, NOW - 60, {"floor": 2**53 - 1}),
        take("nothing-given-out", "before the first trigger", 0, NOW - 60, {"seq": 0, "floor": 0}),
        take("seven-days", "the longest beat", 90, NOW - 60, {"exp": NOW - 60 + 7 * DAY_S}),
        take("last-second", "one second is left", 90, NOW - 60, {"exp": NOW + 1}),
        take("no-clock", "without a clock it does not expire", 90, 1, {"iat": 1, "exp": 2}, clock=None),
        take("clock-slow", "issued in the future: the clock is slow", 90, NOW - 60, clock=0),
        take("unknown-names", "unknown names are ignored", 90, NOW - 60, {"groups": {"eu": 7}}),
        Vector("recall-below-floor", "taking back is always safe", recalled(), taken_back, {"floor": 200}),
        Vector("repetition-below-floor", "what is held is not below the floor", bundle(), repeated,
               {"floor": 200} | device(**held)),
    ]  # fmt: skip


GROUPS = {
    "T03-type-places": types,
    "T04-rotated": rotated,
    "T06-beat": beats,
    "T07-lifetimes": clocks,
    "T10-partial": halves,
    "T20-warrant": emergencies,
    "T22-artifact-scope": scopes,
    "valid-warrant": allowed,
    "valid-beat": heard,
}
