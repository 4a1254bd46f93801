"""Hostile fields: rightly signed, but of a type, form or range that is not allowed (T8, T11, T12, T15, T18, T33)."""

from __future__ import annotations

from typing import Any

from tests.golden.kit import (
    DROP,
    IMAGE,
    NOW,
    URL,
    Key,
    Vector,
    bundle,
    device,
    offer,
    payload_bundle,
    recalled,
    refused,
    statement,
    token_hash,
    trigger_key,
)


def _trigger(reason: str, rows: list[tuple[str, str, str, Any]]) -> list[Vector]:
    return [refused(reason, name, why, bundle({field: value})) for name, why, field, value in rows]


def numbers() -> list[Vector]:
    edits = [
        ("bad_number", "two-to-53", "one beyond what a double can count", b"9007199254740992"),
        ("bad_number", "two-to-64", "wraps to 0 in 64 bits", b"18446744073709551616"),
        ("bad_number", "two-to-64-and-101", "wraps to 101 in 64 bits", b"18446744073709551717"),
        ("bad_number", "minus-one", "negative", b"-1"),
        ("bad_number", "exponent", "1e3", b"1e3"),
        ("bad_number", "fraction", "101.0", b"101.0"),
        ("bad_field", "string", "a number as a string", b'"101"'),
        ("bad_field", "true", "true counts as 1 in many languages", b"true"),
        ("bad_field", "array", "a number in an array", b"[101]"),
        ("bad_field", "zero", "no seq is 0", b"0"),
        ("bad_json", "null", "null", b"null"),
        ("seq_jump", "largest", "would block every later trigger", b"9007199254740991"),
        ("seq_jump", "step-and-one", "one further than allowed", b"1099511627877"),
    ]
    return [
        *(refused(r, f"seq-{n}", why, payload_bundle((b'"seq":101', b'"seq":' + new))) for r, n, why, new in edits),
        refused("missing_field", "seq-missing", "no seq", bundle({"seq": DROP})),
        refused("seq_jump", "seq-recall-jump", "a recall may not jump either", recalled({"seq": 2**40 + 101})),
    ]


def targets() -> list[Vector]:
    foreign = [
        ("other-device", "another device", ["d:door-18"]),
        ("device-prefix", "our name is a prefix of it", ["d:door-170"]),
        ("device-shorter", "it is a prefix of our name", ["d:door-1"]),
        ("trailing-dot", "a dot behind our name", ["d:door-17."]),
        ("other-group", "another group", ["g:us"]),
        ("group-prefix", "eu2 is not eu", ["g:eu2"]),
        ("group-as-device", "the name of our group as a device", ["d:eu"]),
        ("device-as-group", "our name as a group", ["g:door-17"]),
        ("device-as-model", "our name as a model", ["m:door-17"]),
        ("other-model", "another model", ["m:esp32-c6"]),
        ("model-prefix", "a prefix of our model", ["m:esp32"]),
        ("eight-others", "eight others", [f"d:door-{n}" for n in range(20, 28)]),
    ]
    malformed = [
        ("aud-empty", "nobody is not everybody", "aud", []),
        ("aud-wildcard", "there are no wildcards", "aud", ["d:*"]),
        ("aud-plus", "nor those of topics", "aud", ["d:+"]),
        ("aud-string", "not an array", "aud", "d:door-17"),
        ("aud-nine", "nine are too many", "aud", ["d:door-17"] * 9),
        ("aud-case", "identifiers are lower case", "aud", ["d:Door-17"]),
        ("aud-kind-case", "D is no kind", "aud", ["D:door-17"]),
        ("aud-kind-unknown", "x is no kind", "aud", ["x:door-17"]),
        ("aud-bare", "no kind", "aud", ["door-17"]),
        ("aud-nobody", "a kind without a name", "aud", ["d:"]),
        ("aud-space", "a space behind", "aud", ["d:door-17 "]),
        ("aud-second-malformed", "one good, one malformed", "aud", ["d:door-17", "d:*"]),
        ("aud-number", "a number in the array", "aud", [17]),
        ("aud-nested", "an array in the array", "aud", [["d:door-17"]]),
    ]
    hardware = [
        ("hw-other", "another model", ["esp32-c6"]),
        ("hw-prefix", "a prefix of our model", ["esp32"]),
        ("hw-longer", "our model is a prefix of it", ["esp32-c3-mini"]),
    ]
    return [
        *(refused("not_addressed", f"aud-{n}", why, bundle({"aud": aud})) for n, why, aud in foreign),
        *_trigger("bad_field", malformed),
        refused("missing_field", "aud-missing", "no audience", bundle({"aud": DROP})),
        *(refused("wrong_hardware", n, why, bundle(both={"hw": hw})) for n, why, hw in hardware),
        refused("bad_field", "hw-empty", "no hardware is not all hardware", bundle(both={"hw": []})),
        refused("bad_field", "hw-case", "models are lower case", bundle(both={"hw": ["ESP32-C3"]})),
        refused("unknown_component", "comp-unknown", "no such component", bundle(both={"comp": "modem"})),
        refused("unknown_component", "comp-recall", "a recall for no component of ours", recalled({"comp": "modem"})),
        refused("not_addressed", "recall-for-other", "a recall for another device", recalled({"aud": ["d:door-18"]})),
    ]


def environments() -> list[Vector]:
    staging = Key("staging-1", "ota-trigger+jws")
    statement_line = bundle().split(b"\n")[1]
    claims = offer({"iss": "test-fleet-staging", "ast": token_hash(statement_line)})
    artifact_staging = Key("artifact-staging", "ota-artifact+jws").token(statement())
    return [
        refused("wrong_issuer", "staging-claims", "made for staging", bundle({"iss": "test-fleet-staging"})),
        refused("wrong_issuer", "issuer-prefix", "a prefix of our deployment", bundle({"iss": "test"})),
        refused("wrong_issuer", "staging-recall", "a recall made for staging", recalled({"iss": "staging"})),
        refused("unknown_key", "staging-key", "signed by the staging key", staging.token(claims)),
        refused(
            "unknown_key",
            "staging-statement",
            "the statement was signed by the artifact key of staging",
            trigger_key.token(offer({"ast": token_hash(artifact_staging)})) + b"\n" + artifact_staging,
        ),
        refused("wrong_epoch", "epoch-before", "made under the epoch before", bundle({"ep": 2})),
        refused("wrong_epoch", "epoch-after", "made under the epoch after", bundle({"ep": 4})),
        refused("bad_field", "epoch-zero", "there is no epoch 0", bundle({"ep": 0})),
        refused("bad_field", "issuer-capitals", "identifiers are lower case", bundle({"iss": "Test-Fleet"})),
        refused("missing_field", "issuer-missing", "no deployment", bundle({"iss": DROP})),
        refused("missing_field", "epoch-missing", "no epoch", bundle({"ep": DROP})),
    ]


def digests() -> list[Vector]:
    hexadecimal = "cd" * 32
    rows = [
        ("hash-31-bytes", "a truncated hash", IMAGE[:42]),
        ("hash-33-bytes", "a longer one", IMAGE + "A"),
        ("hash-16-characters", "a prefix", IMAGE[:16]),
        ("hash-empty", "an empty one", ""),
        ("hash-hex", "hexadecimal", hexadecimal),
        ("hash-hex-capitals", "hexadecimal in capitals", hexadecimal.upper()),
        ("hash-padded", "with padding", IMAGE[:42] + "="),
        ("hash-padded-44", "with padding behind", IMAGE + "="),
        ("hash-standard-alphabet", "the other base64 alphabet", "+/" + IMAGE[2:]),
        ("hash-loose-bits", "unused bits set", IMAGE[:42] + "V"),
        ("hash-prefixed", "an algorithm before it", "sha256:" + IMAGE[:36]),
        ("hash-array", "in an array", [IMAGE]),
    ]
    out = {"size": 8192, "sha256": IMAGE[:42]}
    return [
        *(refused("bad_field", n, why, bundle(both={"sha256": value})) for n, why, value in rows),
        refused("missing_field", "hash-md5", "a weaker hash instead", bundle(both={"sha256": DROP, "md5": "cd" * 16})),
        refused("bad_field", "hash-statement-short", "ast truncated", bundle({"ast": IMAGE[:42]})),
        refused("missing_field", "hash-statement-missing", "no ast", bundle({"ast": DROP})),
        refused("bad_field", "hash-recall-short", "tok truncated", recalled({"tok": IMAGE[:42]})),
        refused("bad_field", "hash-out-short", "the unpacked hash truncated", bundle(both={"out": out})),
        refused(
            "missing_field", "hash-out-missing", "no hash of the unpacked image", bundle(both={"out": {"size": 1}})
        ),
        refused("missing_field", "hash-base-alone", "a delta without its result", bundle(both={"base": IMAGE})),
        refused("bad_field", "hash-out-array", "out is an object", bundle(both={"out": [8192, IMAGE]})),
    ]


def addresses() -> list[Vector]:
    path = f"/v1/dl/{IMAGE}"
    rows = [
        ("url_scheme", "plain-http", "no TLS", f"http://fw.example.net{path}"),
        ("url_scheme", "http-loopback", "loopback is not allowed here", f"http://127.0.0.1:8080{path}"),
        ("url_scheme", "ftp", "another scheme", f"ftp://fw.example.net{path}"),
        ("url_scheme", "file", "a local file", "file:///etc/passwd"),
        ("url_malformed", "scheme-capitals", "schemes are lower case", f"HTTPS://fw.example.net{path}"),
        ("url_malformed", "data", "no host at all", "data:text/plain,hello"),
        ("url_malformed", "relative", "no scheme", f"//fw.example.net{path}"),
        ("url_malformed", "bare", "no scheme and no slashes", f"fw.example.net{path}"),
        ("url_malformed", "one-slash", "one slash", f"https:/fw.example.net{path}"),
        ("url_malformed", "no-host", "no host", f"https://{path}"),
        ("url_malformed", "no-path", "no path", "https://fw.example.net"),
        ("url_malformed", "query-without-path", "the query begins at the host", "https://fw.example.net?x=/"),
        ("url_malformed", "fragment", "a fragment", f"https://fw.example.net{path}#x"),
        ("url_malformed", "fragment-host", "evil behind a fragment", "https://fw.example.net#@evil.test/"),
        ("url_malformed", "backslash", "browsers read it as a slash", "https://fw.example.net\\@evil.test/"),
        ("url_malformed", "host-capitals", "hosts are lower case", f"https://FW.example.net{path}"),
        ("url_malformed", "host-percent", "an escaped letter in the host", f"https://%66w.example.net{path}"),
        ("url_malformed", "host-trailing-dot", "a dot behind the host", f"https://fw.example.net.{path}"),
        ("url_malformed", "port-zero", "port 0", f"https://fw.example.net:0{path}"),
        ("url_malformed", "port-empty", "no port behind the colon", f"https://fw.example.net:{path}"),
        ("url_malformed", "port-word", "a port that is no number", f"https://fw.example.net:https{path}"),
        ("url_userinfo", "user", "our host as a user name", "https://fw.example.net@evil.test/"),
        ("url_userinfo", "password", "our host as user name and password", "https://fw.example.net:443@evil.test/"),
        ("url_userinfo", "query-user", "evil behind a question mark", "https://fw.example.net?@evil.test/"),
        ("url_ip_literal", "ipv4", "an address", f"https://10.0.0.1{path}"),
        ("url_ip_literal", "metadata", "the address of cloud credentials", "https://169.254.169.254/latest/meta-data/"),
        ("url_ip_literal", "ipv4-decimal", "an address as one number", f"https://2130706433{path}"),
        ("url_ip_literal", "ipv4-hex", "an address in hexadecimal", f"https://0x7f000001{path}"),
        ("url_ip_literal", "ipv4-octal", "an address with an octal part", f"https://0177.0.0.1{path}"),
        ("url_ip_literal", "ipv4-short", "an address with two parts", f"https://127.1:443{path}"),
        ("url_ip_literal", "ipv6", "an address of version 6", f"https://[fe80::1]{path}"),
        ("url_ip_literal", "ipv4-mapped", "version 4 inside version 6", f"https://[::ffff:127.0.0.1]{path}"),
        ("url_origin", "other-host", "another host", f"https://evil.test{path}"),
        ("url_origin", "suffix", "our host in front", f"https://fw.example.net.evil.test{path}"),
        ("url_origin", "prefix", "our host behind", f"https://evilfw.example.net{path}"),
        ("url_origin", "subdomain", "below our host", f"https://x.fw.example.net{path}"),
        ("url_origin", "parent", "above our host", f"https://example.net{path}"),
        ("url_origin", "other-port", "another port", f"https://fw.example.net:8443{path}"),
        ("url_origin", "missing-port", "the port is part of the origin", f"https://cdn.example.net{path}"),
        ("url_origin", "default-port", "compared as text, :443 is another origin", f"https://fw.example.net:443{path}"),
        ("url_origin", "in-query", "our host in the query", "https://evil.test/?https://fw.example.net/"),
    ]
    loopback = {"loopback": True, "allowed_origins": ["http://127.0.0.1:8080"]}
    local = [
        ("url_scheme", "loopback-lookalike", "begins like loopback", f"http://127.0.0.1.evil.test{path}"),
        ("url_scheme", "loopback-other-host", "plain http to another host", f"http://fw.example.net{path}"),
        ("url_userinfo", "loopback-user", "loopback as a user name", f"http://127.0.0.1:8080@evil.test{path}"),
        ("url_origin", "loopback-other-port", "a port that was not provisioned", f"http://127.0.0.1:8081{path}"),
        ("url_ip_literal", "loopback-https", "https needs a name", f"https://127.0.0.1:8080{path}"),
    ]
    lists = [
        ("url-none", "no URL", "url", []),
        ("url-five", "five URLs", "url", [URL] * 5),
        ("url-string", "not an array", "url", URL),
        ("url-513", "one byte too long", "url", [URL + "?" + "a" * (512 - len(URL))]),
        ("url-empty", "an empty URL", "url", [""]),
        ("url-space", "a space inside", "url", [URL + " x"]),
        ("url-homoglyph", "a letter that looks like one of ours", "url", ["https://fw.ex\u0430mple.net/"]),
    ]
    second = bundle({"url": [URL, "https://evil.test/"]})
    return [
        *(refused(r, f"url-{n}", why, bundle({"url": [url]})) for r, n, why, url in rows),
        *(refused(r, f"url-{n}", why, bundle({"url": [url]}), loopback) for r, n, why, url in local),
        *_trigger("bad_field", lists),
        refused("missing_field", "url-missing", "no URL", bundle({"url": DROP})),
        refused("url_origin", "url-second", "one good URL does not excuse the second", second),
    ]


def identifiers() -> list[Vector]:
    bad = [
        ("slash", "r/12", "a level of a topic"),
        ("plus", "r+12", "a wildcard"),
        ("hash", "r#", "a wildcard"),
        ("dollar", "$sys", "a broker's own topic"),
        ("dots", "../r", "a path"),
        ("capital", "R-12", "upper case"),
        ("space", "r 12", "a space"),
        ("homoglyph", "\u0440-12", "a letter that looks like p"),
        ("dot-first", ".r", "a dot in front"),
        ("empty", "", "nothing"),
        ("too-long", "r" * 65, "65 characters"),
        ("number", 12, "a number"),
    ]
    return [
        *(refused("bad_field", f"cid-{n}", f"{why} in a rollout id", bundle({"cid": cid})) for n, cid, why in bad),
        refused("bad_field", "comp-path", "a path as a component", bundle(both={"comp": "../boot"})),
        refused("bad_field", "aud-path", "a level of a topic in the audience", bundle({"aud": ["d:door/17"]})),
        refused("bad_field", "fmt-path", "a path as a format", bundle(both={"fmt": "raw/../x"})),
        refused("bad_field", "hw-path", "a path as a model", bundle(both={"hw": ["esp32-c3", "a/b"]})),
    ]


def ranges() -> list[Vector]:
    rows = [
        ("version-2", "another format version", "v", 2),
        ("version-true", "true is not 1", "v", True),
        ("version-string", "1 as text", "v", "1"),
        ("name-number", "a number as a name", "name", 5),
        ("name-empty", "an empty name", "name", ""),
        ("ver-65", "a version of 65 characters", "ver", "1" * 65),
        ("rel-zero", "release 0", "rel", 0),
        ("rel-true", "true as a release", "rel", True),
        ("size-zero", "nothing to install", "size", 0),
        ("size-string", "a size as text", "size", "4096"),
        ("wave-string", "a stage as text", "wave", "1"),
        ("att-zero-update", "update 0", "att", "0.1"),
        ("att-zero-attempt", "attempt 0", "att", "7.0"),
        ("att-leading-zero", "two spellings of one attempt", "att", "07.1"),
        ("att-bare", "no attempt", "att", "7"),
        ("att-three", "three parts", "att", "7.1.1"),
        ("att-words", "words", "att", "seven.one"),
        ("att-number", "7.1 as text only", "att", 7),
        ("att-negative", "a negative update", "att", "-7.1"),
        ("jti-short", "too little chance", "jti", "AAECAwQ"),
        ("jti-long", "too long", "jti", "A" * 44),
        ("jti-characters", "other characters", "jti", "AAECAwQF+/gI"),
        ("act-capitals", "INSTALL", "act", "INSTALL"),
        ("act-number", "a number", "act", 1),
        ("urg-four", "beyond emergency", "urg", 4),
        ("urg-string", "3 as text", "urg", "3"),
        ("policy-array", "a policy that is no object", "pol", [60]),
        ("policy-string", "jitter as text", "pol", {"jit": "60"}),
        ("policy-huge", "a jitter of more than 400 days", "pol", {"jit": 34_560_001}),
        ("policy-battery-zero", "a battery that every device has", "pol", {"bat": 0}),
        ("policy-battery-101", "a battery that no device has", "pol", {"bat": 101}),
        ("policy-battery-string", "a battery as text", "pol", {"bat": "50"}),
        ("policy-battery-true", "true is not 1 percent", "pol", {"bat": True}),
        ("policy-charging-zero", "what is not asked for is left out", "pol", {"chg": 0}),
        ("policy-charging-true", "true is not 1", "pol", {"chg": True}),
        ("policy-charging-two", "2 asks for nothing that is known", "pol", {"chg": 2}),
        ("policy-free-string", "room as text with a unit", "pol", {"free": "1MiB"}),
        ("policy-free-array", "room in an array", "pol", {"free": [4096]}),
        ("policy-link-string", "a link outside of a list", "pol", {"link": "wifi"}),
        ("policy-link-none", "no link will do", "pol", {"link": []}),
        ("policy-link-four", "four links", "pol", {"link": ["wifi", "ethernet", "cellular", "wifi"]}),
        ("policy-link-unknown", "a link that nobody defined", "pol", {"link": ["wifi", "lora"]}),
        ("policy-link-prefix", "begins like a link", "pol", {"link": ["wifi6"]}),
        ("policy-link-space", "a space behind", "pol", {"link": ["wifi "]}),
        ("policy-link-case", "links are lower case", "pol", {"link": ["WiFi"]}),
        ("policy-link-number", "a number as a link", "pol", {"link": [1]}),
        ("policy-link-object", "names of an object as links", "pol", {"link": {"wifi": 1}}),
        ("policy-unmetered-zero", "what is not asked for is left out", "pol", {"unm": 0}),
        ("policy-unmetered-true", "true is not 1", "pol", {"unm": True}),
        ("policy-uptime-zero", "no time at all", "pol", {"up": 0}),
        ("policy-uptime-huge", "an uptime of more than 400 days", "pol", {"up": 34_560_001}),
        ("policy-uptime-string", "a time as text", "pol", {"up": "10m"}),
        ("message-201", "a text of 201 characters", "msg", "m" * 201),
        ("critical-empty", "an empty list", "crit", []),
        ("critical-string", "not a list", "crit", "seq"),
        ("expiry-at-issue", "no lifetime", "exp", NOW - 60),
        ("expiry-before-issue", "a negative lifetime", "exp", NOW - 61),
        ("expiry-401-days", "a lifetime that never ends", "exp", NOW - 60 + 34_560_001),
        ("expiry-string", "a time as text", "exp", "2027-01-15"),
    ]
    missing = [
        "v",
        "comp",
        "cid",
        "act",
        "jti",
        "att",
        "iat",
        "exp",
        "wave",
        "name",
        "rel",
        "sec",
        "from",
        "size",
        "urg",
    ]
    return [
        *_trigger("bad_field", rows),
        refused("bad_number", "policy-free-beyond", "more room than can be counted", bundle({"pol": {"free": 2**53}})),
        refused("bad_number", "policy-uptime-fraction", "half a second", bundle({"pol": {"up": 0.5}})),
        refused("bad_json", "policy-link-null", "null for no link", bundle({"pol": {"link": None}})),
        refused(
            "too_deep",
            "policy-link-nested",
            "links in a list in a list in a list",
            bundle({"pol": {"link": [[["wifi"]]]}}),
        ),
        refused("bad_field", "policy-link-list", "a list in the list", bundle({"pol": {"link": [["wifi"]]}})),
        *(refused("missing_field", f"missing-{name}", f"no {name}", bundle({name: DROP})) for name in missing),
        refused("missing_field", "missing-tok", "a recall of nothing", recalled({"tok": DROP})),
        refused("unsupported_act", "act-probe", "reserved, not understood yet", bundle({"act": "probe"})),
        refused("unsupported_act", "act-unknown", "a word nobody defined", bundle({"act": "erase"})),
        refused(
            "unknown_critical", "critical-unknown", "nbf must be understood", bundle({"nbf": NOW, "crit": ["nbf"]})
        ),
        refused("unknown_critical", "critical-recall", "in a recall too", recalled({"crit": ["quorum"]})),
        refused("unknown_critical", "critical-statement", "in a statement too", bundle(None, {"crit": ["fuse"]})),
        refused("bad_field", "statement-version-2", "another format version", bundle(None, {"v": 2})),
        refused("missing_field", "statement-no-issue", "a statement without a time", bundle(None, {"iat": DROP})),
        refused("bad_field", "statement-expiry", "a statement that ends before it begins", bundle(None, {"exp": 1})),
        refused("bad_field", "statement-downgrades", "dn is a list of releases", bundle(None, {"dn": True})),
        refused("bad_field", "statement-requirements", "req is a list of objects", bundle(None, {"req": ["radio"]})),
        refused("bad_field", "statement-bill", "sbom is an object", bundle(None, {"sbom": IMAGE}), device()),
    ]


GROUPS = {
    "T08-seq-range": numbers,
    "T11-target": targets,
    "T12-environment": environments,
    "T15-hash": digests,
    "T18-url": addresses,
    "T31-fields": ranges,
    "T33-identifier": identifiers,
}
