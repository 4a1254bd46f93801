"""What a device must accept, and the state it must be in afterwards."""

from __future__ import annotations

from typing import Any

from tests.golden.kit import (
    DEVICE,
    DROP,
    HELD,
    IMAGE,
    NOW,
    OTHER_IMAGE,
    URL,
    Claims,
    Vector,
    artifact_key,
    bundle,
    compact,
    component,
    device,
    offer,
    payload_bundle,
    recall,
    recalled,
    second_artifact_key,
    statement,
    token_hash,
    trigger_key,
)

RUNNING = {"rel": 5, "sha256": IMAGE}


def _accepted(
    kind: str,
    name: str,
    why: str,
    data: bytes,
    after: dict[str, Any],
    state: dict[str, Any] | None = None,
    clock: int | None = NOW,
) -> Vector:
    expected = {"kind": kind, "token_hash": token_hash(data.split(b"\n")[0]), "component": after}
    return Vector(name, why, data, expected, state or {}, clock)


def _install(
    name: str,
    why: str,
    data: bytes,
    state: dict[str, Any] | None = None,
    *,
    clock: int | None = NOW,
    **after: Any,
) -> Vector:
    held = {"seq": 101, "held": token_hash(data.split(b"\n")[0]), "att": "7.1"}
    return _accepted("install", name, why, data, component(**(held | after)), state, clock)


def _url(url: str) -> bytes:
    return bundle({"url": [url]})


def installs() -> list[Vector]:
    second = second_artifact_key.token(statement())
    by_second = trigger_key.token(offer({"ast": token_hash(second)})) + b"\n" + second
    radio = {**component(), "name": "radio", "rel": 2, "seq": 101, "att": "7.1"}
    for_radio = bundle(both={"comp": "radio"})
    radio["held"] = token_hash(for_radio.split(b"\n")[0])
    delta = {"out": {"size": 8192, "sha256": OTHER_IMAGE}, "base": IMAGE, "fmt": "bsdiff"}
    requirement = {"req": [{"comp": "radio", "rel": 2}]}
    bill = {"sbom": {"sha256": IMAGE, "uri": "https://build.example.net/5.spdx"}, "vex": {"sha256": IMAGE}}
    back, old = {"act": "rollback"}, {"rel": 3}
    others = [f"d:door-{n}" for n in range(20, 27)]
    return [
        _install("plain", "the ordinary case", bundle()),
        _install("no-clock", "without a clock nothing expires", bundle(), clock=None),
        _install("no-clock-expired", "nor does this", bundle({"iat": 1, "exp": 2}), clock=None),
        _install("clock-1970", "a clock that was never set", bundle(), clock=0),
        _install("clock-behind-issue", "issued in the future: the clock is slow", bundle(), clock=NOW - 86_400),
        _install("last-second", "one second is left", bundle({"exp": NOW + 1})),
        _install("longest-life", "400 days", bundle({"exp": NOW - 60 + 34_560_000})),
        _install("group", "to a group", bundle({"aud": ["g:canary"]})),
        _install("model", "to a model", bundle({"aud": ["m:esp32-c3"]})),
        _install("eighth-audience", "we are the last of eight", bundle({"aud": [*others, "d:door-17"]})),
        _install("three-models", "one of three models", bundle(both={"hw": ["esp32", "esp32-c6", "esp32-c3"]})),
        _install("from-equal", "the lowest release that may jump", bundle(both={"from": 4})),
        _install("far-jump", "release counters may jump", bundle(both={"rel": 2**53 - 1})),
        _install("higher-security-epoch", "the epoch rises with the release", bundle(both={"sec": 7})),
        _install("same-release-same-image", "a repair", bundle(both={"rel": 4}), device(sha256=IMAGE), sha256=IMAGE),
        _install("rollback", "the statement allows it from here", bundle(back, {"dn": [9, 4]}, old)),
        _install("largest-seq-step", "exactly 2^40", bundle({"seq": 2**40 + 100}), seq=2**40 + 100),
        _install("largest-seq", "the last number there is", bundle({"seq": 2**53 - 1}), device(seq=2**53 - 2),
                 seq=2**53 - 1),
        _install("largest-attempt", "the largest attempt", bundle({"att": f"{10**18 - 1}.9999"}),
                 att=f"{10**18 - 1}.9999"),
        _install("first-stage", "stage 0", bundle({"wave": 0})),
        _install("background", "least urgent", bundle({"urg": 0})),
        _install("security", "most urgent without cosigners", bundle({"urg": 2})),
        _install("one-byte", "the smallest artifact", bundle(both={"size": 1})),
        _install("largest-size", "the largest artifact", bundle(both={"size": 2**53 - 1})),
        _install("delta", "a delta names its base and its result", bundle(both=delta)),
        _install("requirement-met", "the other component is new enough", bundle(None, requirement)),
        _install("bill-of-materials", "digests of further documents", bundle(None, bill)),
        _install("statement-in-time", "the statement lasts a second more", bundle(None, {"exp": NOW + 1})),
        _install("statement-no-clock", "without a clock it does not expire", bundle(None, {"exp": NOW}), clock=None),
        _install("second-artifact-key", "two artifact keys are provisioned", by_second),
        _install("superseded", "another attempt replaces the one held", bundle(), device(held=IMAGE, att="6.2")),
        _accepted("install", "second-component", "the other component has its own mark", for_radio, radio),
    ]  # fmt: skip


def texts() -> list[Vector]:
    long = compact(offer({"ast": token_hash(artifact_key.token(statement()))}))
    padded = trigger_key.token(long + b" " * (1200 - len(long))) + b"\n" + artifact_key.token(statement())
    policy = {"jit": 600, "dl": 3600, "win": [120, 240]}
    least = {"jit": 0, "dl": 1, "bat": 1, "chg": 1, "free": 0, "link": ["wifi"], "unm": 1, "up": 1}
    days_400 = 34_560_000
    most: Claims = {"jit": days_400, "dl": days_400, "bat": 100, "chg": 1, "free": 2**53 - 1}
    most |= {"link": ["cellular", "wifi", "ethernet"], "unm": 1, "up": days_400}
    return [
        _install(
            "unicode", "text for people in any script", bundle({"msg": "T\u00fcrschloss \u6f22\u5b57 \U0001f512"})
        ),
        _install("unicode-name", "names too", bundle(both={"name": "\u30c9\u30a2", "ver": "5.0.0-\u03b2"})),
        _install("longest-name", "64 characters", bundle(both={"name": "\u00e9" * 64})),
        _install("escapes", "escapes are JSON", payload_bundle((b'"name":"door"', b'"name":"\\u0064oor"'))),
        _install("white-space", "so is white space", payload_bundle((b'"wave":1', b'"wave" : \t1 '))),
        _install("payload-1200", "the longest payload", padded),
        _install("unknown-names", "unknown names are ignored", bundle({"x": [1, {"y": True}], "nbf": NOW + 9})),
        _install("unknown-statement-names", "in the statement too", bundle(None, {"rxs": "R1"})),
        _install("four-levels", "the deepest nesting", payload_bundle((b'"wave":1', b'"wave":1,"x":[[[1]]]'))),
        _install("critical-known", "everything demanded is known", bundle({"crit": ["seq", "pol"], "pol": policy})),
        _install("policy", "jitter, download deadline, and more", bundle({"pol": policy})),
        _install("policy-empty", "a policy that says nothing", bundle({"pol": {}})),
        _install("policy-least", "every member at its least", bundle({"pol": least})),
        _install("policy-most", "every member at its most; whether it is met is for the agent", bundle({"pol": most})),
        _install("policy-link-twice", "a link named twice", bundle({"pol": {"link": ["wifi", "wifi"]}})),
        _install("policy-unknown-link-name", "a name beside the known ones", bundle({"pol": {"links": ["lora"]}})),
        _install(
            "policy-rollback",
            "a rollback has conditions too",
            bundle({"act": "rollback", "pol": {"bat": 30}}, {"dn": [4]}, {"rel": 3}),
        ),
        _install("advisory", "a reference for people", bundle({"adv": "CVE-2027-1234"})),
    ]


def addresses() -> list[Vector]:
    loopback = {"loopback": True}
    return [
        _install("port", "an origin with its port", _url(f"https://cdn.example.net:8443/v1/dl/{IMAGE}")),
        _install("query", "a query", _url(URL + "?part=1&x=a%20b@c:d")),
        _install("four-urls", "four places", bundle({"url": [URL, URL + "?2", URL + "?3", URL + "?4"]})),
        _install("longest-url", "512 bytes", _url(URL + "?" + "a" * (511 - len(URL)))),
        _install("loopback", "plain http to loopback, for rehearsals", _url(f"http://127.0.0.1:8080/v1/dl/{IMAGE}"),
                 loopback | {"allowed_origins": ["http://127.0.0.1:8080"]}),
        _install("loopback-name", "by name", _url("http://localhost/x"),
                 loopback | {"allowed_origins": ["http://localhost"]}),
        _install("loopback-ipv6", "by address of version 6", _url("http://[::1]:80/x"),
                 loopback | {"allowed_origins": ["http://[::1]:80"]}),
    ]  # fmt: skip


def refreshes() -> list[Vector]:
    again = bundle({"seq": 105, "jti": "HwECAwQFBgcI", "exp": NOW + 9000})
    held = {"seq": 101, "held": HELD, "att": "7.1"}
    moved = {"seq": 105, "held": token_hash(again.split(b"\n")[0]), "att": "7.1"}
    return [
        _accepted("refresh", "same-token", "delivered twice", bundle(), component(**held), device(**held)),
        _accepted("refresh", "same-token-late", "delivered again after its end: nothing new begins", bundle(),
                  component(**held), device(**held), NOW + 86_400),
        _accepted("refresh", "same-token-installed", "delivered again after success", bundle(),
                  component(**held, **RUNNING), device(**held, **RUNNING)),
        _accepted("refresh", "same-token-below-mark", "a recall of another attempt raised the mark since", bundle(),
                  component(**(held | {"seq": 140})), device(**(held | {"seq": 140}))),
        _accepted("refresh", "new-token", "issued again for the attempt held", again, component(**moved),
                  device(**held)),
        _accepted("refresh", "new-token-installed", "the daemon asks once more after success", again,
                  component(**moved, **RUNNING), device(**held, **RUNNING)),
        _accepted("refresh", "new-token-no-clock", "without a clock", again, component(**moved), device(**held), None),
    ]  # fmt: skip


def recalls() -> list[Vector]:
    held = {"seq": 101, "held": HELD, "att": "7.1"}
    mark = token_hash(recalled())
    gone = {"seq": 102, "recall": mark}
    offered_again = bundle({"seq": 104})
    new = {"seq": 104, "held": token_hash(offered_again.split(b"\n")[0]), "att": "7.1"}
    other = {"seq": 101, "held": HELD, "att": "8.1"}
    late: Claims = recall({"aud": ["g:eu"], "msg": DROP})
    by_group = trigger_key.token(late)
    return [
        _accepted("recall", "recall-held", "the attempt held is given up", recalled(), component(**gone),
                  device(**held)),
        _accepted("recall", "recall-unknown", "never seen: the mark rises, so that it cannot come later", recalled(),
                  component(**gone)),
        _accepted("recall", "recall-other-attempt", "another attempt stays held", recalled(),
                  component(**(other | gone)), device(**other)),
        _accepted("recall", "recall-twice", "the same recall again changes nothing", recalled(), component(**gone),
                  device(**gone)),
        _accepted("recall", "recall-twice-late", "not even after its end", recalled(), component(**gone),
                  device(**gone), NOW + 86_400),
        _accepted("recall", "recall-no-clock", "without a clock", recalled(), component(**gone), device(**held), None),
        _accepted("recall", "recall-group", "to a group", by_group,
                  component(seq=102, recall=token_hash(by_group)), device(**held)),
        _accepted("install", "offered-again", "after a recall the same attempt may come anew", offered_again,
                  component(**new), device(**gone)),
        _accepted("install", "foreign-keys-ignored", "one trigger key is enough", bundle(),
                  component(**held), {"keys": DEVICE["keys"][:2]}),
    ]  # fmt: skip


GROUPS = {
    "valid-install": installs,
    "valid-text": texts,
    "valid-url": addresses,
    "valid-refresh": refreshes,
    "valid-recall": recalls,
}
