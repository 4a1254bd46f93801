"""Hostile histories: whole and rightly signed, but not now, not here, not again (T4 to T7, T9, T19 to T22, T25)."""

from __future__ import annotations

from tests.golden.kit import (
    DEVICE,
    HELD,
    IMAGE,
    NOW,
    OTHER_IMAGE,
    TRIGGER,
    Vector,
    artifact_key,
    bundle,
    component,
    device,
    offer,
    recall,
    recalled,
    refused,
    second_artifact_key,
    statement,
    stranger_key,
    token_hash,
    trigger_key,
)

DELTA = {"out": {"size": 8192, "sha256": OTHER_IMAGE}, "base": IMAGE}


def replays() -> list[Vector]:
    done = device(rel=5, seq=101, held=token_hash(bundle({"att": "8.1", "seq": 101})), att="8.1", sha256=IMAGE)
    taken_back = device(seq=102, recall=token_hash(recalled()))
    return [
        refused("stale_seq", "replay-at-mark", "another token with the number last seen", bundle({"seq": 100})),
        refused("stale_seq", "replay-below-mark", "an older trigger", bundle({"seq": 99})),
        refused("stale_seq", "replay-first", "the first trigger ever", bundle({"seq": 1})),
        refused("stale_seq", "replay-after-success", "the trigger of an earlier update", bundle({"seq": 55}), done),
        refused("stale_seq", "replay-after-recall", "the trigger that was recalled comes again", bundle(), taken_back),
        refused(
            "stale_seq",
            "replay-older-refresh",
            "an older token of the attempt held: only a newer one refreshes",
            bundle({"seq": 100}),
            device(seq=101, held=HELD, att="7.1"),
        ),
        refused("stale_seq", "replay-no-clock", "order needs no clock", bundle({"seq": 100}), clock=None),
    ]


def rollbacks() -> list[Vector]:
    old = {"rel": 3, "ver": "3.0.0"}
    back = {"act": "rollback"}
    return [
        refused("downgrade", "older-release", "an older release under a newer number", bundle(both=old)),
        refused("downgrade", "oldest-release", "release 1", bundle(both={"rel": 1})),
        refused("downgrade", "older-with-permission", "only a rollback may go back", bundle(None, {"dn": [4]}, old)),
        refused("other_image", "same-release", "the running number with another image", bundle(both={"rel": 4}),
                device(sha256=OTHER_IMAGE)),
        refused("other_image", "same-release-unknown-image", "the device does not know what it runs",
                bundle(both={"rel": 4})),
        refused("downgrade_not_allowed", "rollback-alone", "the statement must allow it", bundle(back, None, old)),
        refused("downgrade_not_allowed", "rollback-from-other", "allowed from another release only",
                bundle(back, {"dn": [5, 6]}, old)),
        refused("downgrade_not_allowed", "rollback-upwards", "a rollback is no way around", bundle(back)),
        refused("security_epoch", "lower-security-epoch", "a fixed hole would open again", bundle(both={"sec": 0})),
        refused("security_epoch", "rollback-security-epoch", "no permission reaches below it",
                bundle(back, {"dn": [4]}, old | {"sec": 0})),
        refused("from_too_low", "stepping-stone", "release 5 first", bundle(both={"rel": 6, "from": 5})),
    ]  # fmt: skip


def freezes() -> list[Vector]:
    ended = bundle(None, {"exp": NOW})
    return [
        refused("expired", "expired-now", "over at this very second", bundle({"exp": NOW})),
        refused(
            "expired", "expired-yesterday", "held back for a day", bundle({"iat": NOW - 90_000, "exp": NOW - 86_400})
        ),
        refused("expired", "expired-recall", "recalls end too", recalled({"exp": NOW})),
        refused(
            "expired",
            "expired-refresh",
            "a new token of the attempt held must be in time",
            bundle({"seq": 102, "exp": NOW}),
            device(seq=101, held=HELD, att="7.1"),
        ),
        refused("statement_expired", "statement-over", "the artifact is no longer vouched for", ended),
    ]


def clocks() -> list[Vector]:
    return [
        refused("expired", "clock-ten-years-on", "a clock set far ahead", bundle(), clock=NOW + 315_360_000),
        refused("expired", "clock-2038", "beyond 31 bits", bundle(), clock=2**31),
        refused("expired", "clock-2106", "beyond 32 bits", bundle(), clock=2**32),
    ]


def requirements() -> list[Vector]:
    return [
        refused("requirement_unmet", "radio-too-old", "new main, old radio",
                bundle(None, {"req": [{"comp": "radio", "rel": 3}]})),
        refused("requirement_unmet", "component-absent", "a component that is not there",
                bundle(None, {"req": [{"comp": "modem", "rel": 1}]})),
        refused("requirement_unmet", "one-of-two", "one met, one not",
                bundle(None, {"req": [{"comp": "radio", "rel": 2}, {"comp": "main", "rel": 5}]})),
        refused("requirement_unmet", "last-of-eight", "seven met, one not",
                bundle(None, {"req": [*[{"comp": "radio", "rel": 1}] * 7, {"comp": "radio", "rel": 3}]})),
        refused("requirement_unmet", "largest-requirement", "a release that never comes",
                bundle(None, {"req": [{"comp": "radio", "rel": 2**53 - 1}]})),
        refused("requirement_unmet", "requires-itself", "the release itself is no help before it runs",
                bundle(None, {"req": [{"comp": "main", "rel": 5}]})),
        refused("requirement_unmet", "rollback-requirement", "a rollback has requirements too",
                bundle({"act": "rollback"}, {"dn": [4], "req": [{"comp": "radio", "rel": 3}]}, {"rel": 3})),
        refused("statement_field", "component-of-the-other", "the trigger sends the radio's artifact to main",
                bundle(None, {"comp": "radio"})),
        refused("statement_hash", "statement-of-the-other", "the statement behind the trigger is that of the radio",
                bundle().split(b"\n")[0] + b"\n" + artifact_key.token(statement({"comp": "radio"}))),
    ]  # fmt: skip


def recalls() -> list[Vector]:
    forged = stranger_key.token(recall(), header=trigger_key.header())
    reoffered = device(seq=103, held=token_hash(bundle({"seq": 103})), att="7.1")
    statement_line = artifact_key.token(statement())
    return [
        refused("bad_signature", "forged-recall", "anybody may write this", forged),
        refused("unknown_key", "stranger-recall", "signed by a stranger", stranger_key.token(recall())),
        refused("wrong_role", "recall-by-artifact-key", "the artifact key cannot recall",
                artifact_key.token(recall(), header=artifact_key.header(TRIGGER))),
        refused("wrong_type", "recall-as-statement", "a recall as a statement", artifact_key.token(recall())),
        refused("stale_seq", "recall-after-new-offer", "offered again since: the old recall is void", recalled(),
                reoffered),
        refused("stale_seq", "recall-below-mark", "an old recall", recalled({"seq": 100})),
        refused("bad_bundle", "recall-with-statement", "a recall stands alone", recalled() + b"\n" + statement_line),
        refused("bad_bundle", "recall-newline", "a newline behind a recall", recalled() + b"\n"),
        refused("wrong_epoch", "recall-other-epoch", "made under another epoch", recalled({"ep": 2})),
    ]  # fmt: skip


def emergencies() -> list[Vector]:
    cosign = b"\n" + artifact_key.token(statement())
    return [
        refused("cosign_required", "emergency-alone", "no cosigners are provisioned", bundle({"urg": 3})),
        refused("cosign_required", "emergency-no-clock", "nor without a clock", bundle({"urg": 3}), clock=None),
        refused("bad_bundle", "emergency-third-line", "a third line is not a cosignature", bundle({"urg": 3}) + cosign),
    ]


def online_key() -> list[Vector]:
    lines = bundle().split(b"\n")
    differing = {
        "name": "gate",
        "ver": "5.0.1",
        "rel": 6,
        "sec": 2,
        "comp": "radio",
        "hw": ["esp32-c3", "esp32-c6"],
        "from": 1,
        "size": 4097,
        "sha256": OTHER_IMAGE,
        "fmt": "zst",
    }
    ours = [
        refused("statement_field", f"trigger-differs-{name}", "the trigger says otherwise than the statement",
                bundle({name: value}))
        for name, value in differing.items()
    ]  # fmt: skip
    theirs = [
        refused("statement_field", f"statement-differs-{name}", "the statement says otherwise than the trigger",
                bundle(None, {name: value}))
        for name, value in differing.items() if name in ("size", "sha256", "hw", "rel")
    ]  # fmt: skip
    another = artifact_key.token(statement({"iat": NOW - 1}))
    by_trigger_key = trigger_key.token(statement(), header=trigger_key.header("ota-artifact+jws"))
    self_made = trigger_key.token(offer({"ast": token_hash(by_trigger_key)})) + b"\n" + by_trigger_key
    return [
        *ours,
        *theirs,
        refused("statement_field", "hw-order", "the same models in another order are another list",
                bundle({"hw": ["esp32-c6", "esp32-c3"]}, {"hw": ["esp32-c3", "esp32-c6"]})),
        refused("statement_field", "delta-only-trigger", "the statement knows no delta", bundle(DELTA)),
        refused("statement_field", "delta-only-statement", "the trigger hides the delta", bundle(None, DELTA)),
        refused("statement_missing", "no-statement", "the online key alone installs nothing", lines[0]),
        refused("statement_hash", "other-statement", "right fields, but not the statement named",
                lines[0] + b"\n" + another),
        refused("wrong_type", "swapped-lines", "statement first", lines[1] + b"\n" + lines[0]),
        refused("wrong_type", "trigger-twice", "the trigger as its own statement", lines[0] + b"\n" + lines[0]),
        refused("bad_bundle", "statement-twice", "three lines", b"\n".join([*lines, lines[1]])),
        refused("wrong_role", "self-made-statement", "the online key makes its own statement", self_made),
    ]  # fmt: skip


def artifact_side() -> list[Vector]:
    line = second_artifact_key.token(statement())
    revoked = trigger_key.token(offer({"ast": token_hash(line)})) + b"\n" + line
    keys = [key for key in DEVICE["keys"] if key["kid"] != "artifact-2"]
    by_artifact_key = artifact_key.token(offer(), header=artifact_key.header(TRIGGER))
    return [
        refused("wrong_type", "statement-alone", "the artifact key alone installs nothing", line),
        refused("unknown_key", "revoked-artifact-key", "a key no longer provisioned", revoked, {"keys": keys}),
        refused("wrong_role", "trigger-by-artifact-key", "the artifact key cannot trigger", by_artifact_key),
    ]


def storms() -> list[Vector]:
    later = device(seq=120, held=token_hash(bundle({"seq": 120, "att": "9.1"})), att="9.1")
    parts = {"components": [component(seq=120), DEVICE["components"][1]]}
    return [
        refused("stale_seq", "alternating", "two valid triggers in turn: the older one is void", bundle(), later),
        refused("stale_seq", "alternating-att", "an older attempt of another update", bundle({"seq": 119}), later),
        refused("stale_seq", "overtaken", "a queue delivered in the wrong order", bundle({"seq": 110}), parts),
    ]


GROUPS = {
    "T04-replay": replays,
    "T05-rollback": rollbacks,
    "T06-freeze": freezes,
    "T07-clock": clocks,
    "T09-mix": requirements,
    "T19-recall": recalls,
    "T20-emergency": emergencies,
    "T21-online-key": online_key,
    "T22-artifact-key": artifact_side,
    "T25-storm": storms,
}
