"""Hostile envelopes: signatures, headers, types and bytes that are not what they claim (T1, T2, T3, T31)."""

from __future__ import annotations

import json

from tests.golden.kit import (
    ARTIFACT,
    BEAT,
    COSIGN,
    KEYS,
    NOW,
    ORDER,
    TRIGGER,
    Key,
    Vector,
    artifact_key,
    b64,
    beat_key,
    bundle,
    compact,
    cosign_key,
    offer,
    payload_bundle,
    recalled,
    refused,
    root_key,
    statement,
    stranger_key,
    token_hash,
    trigger_key,
)

GOOD = bundle()
LINE, STATEMENT = GOOD.split(b"\n")
HEADER, PAYLOAD, SIGNATURE = LINE.split(b".")


def _raw_signature() -> bytes:
    signed = HEADER + b"." + PAYLOAD
    return trigger_key.sign(signed)


def _with(header: bytes = HEADER, payload: bytes = PAYLOAD, signature: bytes = SIGNATURE) -> bytes:
    return header + b"." + payload + b"." + signature + b"\n" + STATEMENT


def _flip(text: bytes, place: int) -> bytes:
    other = b"B" if text[place : place + 1] != b"B" else b"C"
    return text[:place] + other + text[place + 1 :]


def signatures() -> list[Vector]:
    raw = _raw_signature()
    r, s = raw[:32], raw[32:]
    zero, order = bytes(32), ORDER.to_bytes(32, "big")
    high = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    other = bundle({"seq": 103}).split(b"\n")[0].split(b".")
    bare = b64(trigger_key.sign(PAYLOAD))
    decoded = b64(trigger_key.sign(trigger_key.header() + b"." + compact(offer())))
    forged = Key("forger", TRIGGER)
    signed_by_forger = b64(forged.sign(HEADER + b"." + PAYLOAD))
    der = b"\x30\x44\x02\x20" + r + b"\x02\x20" + s
    rows = [
        ("first-signature-byte", "one character of r changed", _with(signature=_flip(SIGNATURE, 0))),
        ("middle-signature-byte", "one character of s changed", _with(signature=_flip(SIGNATURE, 60))),
        ("payload-byte", "one character of the payload changed", _with(payload=_flip(PAYLOAD, 40))),
        ("other-payload", "payload of one trigger, signature of another", _with(payload=other[1])),
        ("other-signature", "signature of one trigger under another", _with(signature=other[2])),
        ("forger-with-our-kid", "a foreign key signs under our key identifier", _with(signature=signed_by_forger)),
        ("r-zero", "r = 0", _with(signature=b64(zero + s))),
        ("s-zero", "s = 0", _with(signature=b64(r + zero))),
        ("all-zero", "the zero signature, which broken libraries accept", _with(signature=b64(zero + zero))),
        ("r-order", "r = n", _with(signature=b64(order + s))),
        ("s-order", "s = n", _with(signature=b64(r + order))),
        ("all-ones", "r and s as large as 32 bytes allow", _with(signature=b64(b"\xff" * 64))),
        ("r-s-swapped", "s || r", _with(signature=b64(bytes(31) + b"\x01" + s))),
        ("der-signature", "DER instead of r || s", _with(signature=b64(der))),
        ("signature-63", "one byte short", _with(signature=b64(raw[:63]))),
        ("signature-65", "one byte long", _with(signature=b64(raw + b"\x00"))),
        ("signature-over-payload-only", "the header is not covered", _with(signature=bare)),
        ("signature-over-decoded-parts", "signed before base64url", _with(signature=decoded)),
    ]
    vectors = [refused("bad_signature", name, why, data) for name, why, data in rows]
    statement_forged = Key("artifact-1", ARTIFACT)
    statement_forged.sign = forged.sign  # type: ignore[method-assign]
    line = statement_forged.token(statement())
    trigger = trigger_key.token(offer({"ast": token_hash(line)}))
    return [
        *vectors,
        refused("high_s", "high-s-twin", "n - s verifies too; only one twin may count", _with(signature=b64(r + high))),
        refused("bad_base64", "signature-empty", "no signature at all", _with(signature=b"")),
        refused("unknown_key", "stranger", "a key that this device does not hold", stranger_key.token(offer())),
        refused(
            "bad_signature", "forged-statement", "the trigger is right, its statement is forged", trigger + b"\n" + line
        ),
    ]


def headers() -> list[Vector]:
    public = json.dumps(trigger_key.public)
    texts = [
        ("alg-none", '{"alg":"none","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-none-capitals", '{"alg":"NONE","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-hs256", '{"alg":"HS256","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-rs256", '{"alg":"RS256","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-eddsa", '{"alg":"EdDSA","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-es384", '{"alg":"ES384","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-lower-case", '{"alg":"es256","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-twice", '{"alg":"none","alg":"ES256","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("alg-missing", '{"kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("kid-missing", '{"alg":"ES256","typ":"ota-trigger+jws"}'),
        ("typ-missing", '{"alg":"ES256","kid":"trigger-1"}'),
        ("crit", '{"alg":"ES256","crit":["exp"],"kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("b64-false", '{"alg":"ES256","b64":false,"kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("jku", '{"alg":"ES256","jku":"https://evil.test/k","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("jwk", f'{{"alg":"ES256","jwk":{public},"kid":"trigger-1","typ":"ota-trigger+jws"}}'),
        ("x5c", '{"alg":"ES256","kid":"trigger-1","typ":"ota-trigger+jws","x5c":["MIIB"]}'),
        ("x5u", '{"alg":"ES256","kid":"trigger-1","typ":"ota-trigger+jws","x5u":"https://evil.test/c"}'),
        ("order", '{"typ":"ota-trigger+jws","alg":"ES256","kid":"trigger-1"}'),
        ("space", '{"alg": "ES256","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("newline-behind", '{"alg":"ES256","kid":"trigger-1","typ":"ota-trigger+jws"}\n'),
        ("typ-jwt", '{"alg":"ES256","kid":"trigger-1","typ":"JWT"}'),
        ("typ-capitals", '{"alg":"ES256","kid":"trigger-1","typ":"OTA-TRIGGER+JWS"}'),
        ("typ-media-type", '{"alg":"ES256","kid":"trigger-1","typ":"application/ota-trigger+jws"}'),
        ("kid-empty", '{"alg":"ES256","kid":"","typ":"ota-trigger+jws"}'),
        ("kid-path", '{"alg":"ES256","kid":"../trigger-1","typ":"ota-trigger+jws"}'),
        ("kid-nul", '{"alg":"ES256","kid":"trigger-1\x00","typ":"ota-trigger+jws"}'),
        ("kid-escape", '{"alg":"ES256","kid":"\\u0074rigger-1","typ":"ota-trigger+jws"}'),
        ("kid-sql", '{"alg":"ES256","kid":"\' or 1=1--","typ":"ota-trigger+jws"}'),
        ("kid-number", '{"alg":"ES256","kid":1,"typ":"ota-trigger+jws"}'),
        ("kid-65", f'{{"alg":"ES256","kid":"{"k" * 65}","typ":"ota-trigger+jws"}}'),
        ("byte-order-mark", '\ufeff{"alg":"ES256","kid":"trigger-1","typ":"ota-trigger+jws"}'),
        ("not-json", "trigger-1"),
        ("array", '["ES256","trigger-1","ota-trigger+jws"]'),
    ]
    why = "a header other than the one allowed, signed by the right key all the same"
    return [refused("bad_header", f"header-{name}", why, _headed(text.encode())) for name, text in texts] + [
        refused("unknown_key", "header-kid-case", "key identifiers are case-sensitive", _headed(_kid("Trigger-1"))),
        refused(
            "unknown_key", "header-kid-prefix", "a prefix of an identifier is another one", _headed(_kid("trigger"))
        ),
        refused("unknown_key", "header-kid-64", "the longest identifier, unknown", _headed(_kid("k" * 64))),
        refused(
            "wrong_type", "header-typ-unknown", "a type nobody defined", _headed(trigger_key.header("ota-boot+jws"))
        ),
    ]


def _kid(kid: str) -> bytes:
    return f'{{"alg":"ES256","kid":"{kid}","typ":"ota-trigger+jws"}}'.encode()


def _headed(header: bytes) -> bytes:
    return trigger_key.token(offer({"ast": token_hash(STATEMENT)}), header=header) + b"\n" + STATEMENT


def types() -> list[Vector]:
    keys = {TRIGGER: trigger_key, ARTIFACT: artifact_key, COSIGN: cosign_key, BEAT: beat_key, KEYS: root_key}
    vectors = []
    for typ, key in keys.items():
        word = typ.removeprefix("ota-").removesuffix("+jws")
        if typ != TRIGGER:
            token = key.token(offer({"ast": token_hash(STATEMENT)}))
            forged = key.token(offer({"ast": token_hash(STATEMENT)}), header=key.header(TRIGGER))
            vectors += [
                refused("wrong_type", f"{word}-as-trigger", "another type in the place of the trigger",
                        token + b"\n" + STATEMENT),
                refused("wrong_role", f"{word}-key-signs-trigger", "a key of another role signs a trigger",
                        forged + b"\n" + STATEMENT),
            ]  # fmt: skip
        if typ != ARTIFACT:
            token = key.token(statement())
            forged = key.token(statement(), header=key.header(ARTIFACT))
            vectors += [
                refused("wrong_type", f"{word}-as-statement", "another type in the place of the statement",
                        trigger_key.token(offer({"ast": token_hash(token)})) + b"\n" + token),
                refused("wrong_role", f"{word}-key-signs-statement", "a key of another role signs a statement",
                        trigger_key.token(offer({"ast": token_hash(forged)})) + b"\n" + forged),
            ]  # fmt: skip
    return vectors


def framing() -> list[Vector]:
    head, body, end = HEADER, PAYLOAD, SIGNATURE
    long = b"A" * (2048 - len(head) - len(end) - 1)
    rows = [
        ("not_a_token", "empty", "nothing arrived; a cleared retained topic looks so", b""),
        ("not_a_token", "no-dots", "no dots", b"hello"),
        ("not_a_token", "one-dot", "payload and signature missing", head + b"." + body),
        ("not_a_token", "three-dots", "a fourth part", LINE + b".\n" + STATEMENT),
        ("bad_base64", "only-dots", "three empty parts", b".."),
        ("not_a_token", "empty-line-first", "the trigger is not on the first line", b"\n" + GOOD),
        ("not_a_token", "statement-line-empty", "an empty second line", LINE + b"\n"),
        ("bad_base64", "carriage-return", "lines end in CR LF", LINE + b"\r\n" + STATEMENT),
        ("bad_bundle", "newline-behind", "a newline behind the bundle", GOOD + b"\n"),
        ("bad_base64", "nul-behind", "a NUL behind the bundle", GOOD + b"\x00"),
        ("bad_base64", "space-before", "a space before the bundle", b" " + GOOD),
        ("bad_base64", "byte-order-mark", "a byte order mark before the bundle", b"\xef\xbb\xbf" + GOOD),
        ("bad_base64", "ff-inside", "the byte 0xff inside the header", b"\xff" + GOOD[1:]),
        ("bad_base64", "padding", "base64 with padding", _with(signature=end + b"==")),
        ("bad_base64", "standard-alphabet", "+ and / instead of - and _", _with(header=head[:-2] + b"+/")),
        ("bad_base64", "space-inside", "a space inside a part", _with(payload=body[:9] + b" " + body[9:])),
        ("bad_base64", "impossible-length", "4n+1 characters", _with(payload=_fitted(body))),
        ("bad_base64", "loose-bits-signature", "unused bits set at the end", _with(signature=end[:-1] + _next(end))),
        ("too_long", "token-2049", "one byte beyond the limit of a token", head + b"." + long + b"." + end),
        ("too_long", "ten-thousand-brackets", "a flood of brackets is not even looked at", b"[" * 10_000),
        ("too_long", "statement-too-long", "the limit holds for the second line too", LINE + b"\n" + b"A" * 2049),
    ]
    return [refused(reason, f"frame-{name}", why, data) for reason, name, why, data in rows]


def _fitted(part: bytes) -> bytes:
    return part + b"A" * ((1 - len(part)) % 4 or 4)


def _next(part: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(part[-1:]) + 1 :][:1]


def payloads() -> list[Vector]:
    claims = compact(offer({"ast": token_hash(STATEMENT)}))
    whole = [
        ("bad_json", "not-json", "plain text", b"install now"),
        ("bad_json", "array", "an array on top", b"[" + claims + b"]"),
        ("bad_json", "string", "a string on top", b'"install"'),
        ("bad_number", "not-a-number-on-top", "NaN, which is not JSON", b"NaN"),
        ("bad_json", "two-objects", "two objects one behind the other", claims + claims),
        ("bad_json", "trailing-comma", "a comma before the end", claims[:-1] + b",}"),
        ("bad_json", "unterminated", "the end is missing", claims[:-1]),
        ("bad_json", "comment", "a comment", b"/* */" + claims),
        ("bad_json", "single-quotes", "another kind of quotes", b"{'v':1}"),
        ("bad_json", "byte-order-mark", "a byte order mark", b"\xef\xbb\xbf" + claims),
        ("bad_json", "utf-16", "UTF-16", '{"v":1}'.encode("utf-16")),
        ("bad_json", "utf-32", "UTF-32", '{"v":1}'.encode("utf-32")),
        ("too_deep", "deep-150", "150 levels", b'{"a":' * 150 + b"1" + b"}" * 150),
        ("too_long", "payload-1201", "one byte beyond the limit of a payload", claims + b" " * (1201 - len(claims))),
    ]
    vectors = [
        refused(r, f"payload-{n}", why, trigger_key.token(data) + b"\n" + STATEMENT) for r, n, why, data in whole
    ]
    edits = [
        ("bad_json", "latin-1", "a byte that is not UTF-8", b'"name":"door"', b'"name":"t\xfcr"'),
        ("bad_json", "overlong", "an overlong slash", b'"name":"door"', b'"name":"d\xc0\xafr"'),
        ("bad_json", "utf-8-surrogate", "a surrogate as UTF-8", b'"name":"door"', b'"name":"\xed\xa0\x80"'),
        ("bad_json", "lone-surrogate", "half of a pair, escaped", b'"name":"door"', b'"name":"\\ud800"'),
        ("bad_json", "nul", "an escaped NUL ends strings in C", b'"name":"door"', b'"name":"door\\u0000x"'),
        ("bad_json", "raw-newline", "a raw line feed in a string", b'"name":"door"', b'"name":"do\nor"'),
        ("bad_json", "escape-character", "an escape sequence for terminals", b'"name":"door"', b'"name":"\\u001b[2J"'),
        ("bad_json", "c1-control", "a control character beyond ASCII", b'"name":"door"', b'"name":"\xc2\x9b2J"'),
        ("bad_json", "null", "null", b'"wave":1', b'"wave":null'),
        ("bad_json", "null-unknown", "null under an unknown name", b'"wave":1', b'"wave":1,"x":[null]'),
        ("bad_json", "hex-number", "a number in hexadecimal", b'"wave":1', b'"wave":0x1'),
        ("bad_json", "leading-zero", "a number that begins with 0", b'"wave":1', b'"wave":01'),
        ("bad_json", "plus-sign", "a number with a plus", b'"wave":1', b'"wave":+1'),
        ("bad_number", "fraction", "1.0 is not an integer", b'"wave":1', b'"wave":1.0'),
        ("bad_number", "exponent", "1e3 is not an integer", b'"wave":1', b'"wave":1e3'),
        ("bad_number", "minus-zero", "-0 has two readings", b'"wave":1', b'"wave":-0'),
        ("bad_number", "nan", "NaN", b'"wave":1', b'"wave":NaN'),
        ("bad_number", "infinity", "Infinity", b'"wave":1', b'"wave":Infinity'),
        ("bad_number", "minus-infinity", "-Infinity", b'"wave":1', b'"wave":-Infinity'),
        ("bad_number", "four-hundred-digits", "a number of 400 digits", b'"wave":1', b'"wave":' + b"9" * 400),
        ("bad_number", "fraction-unknown", "a fraction under an unknown name", b'"wave":1', b'"wave":1,"x":0.5'),
        ("duplicate_name", "twice", "the same name twice", b'"wave":1', b'"wave":1,"rel":5'),
        ("duplicate_name", "twice-escaped", "twice, once escaped", b'"wave":1', b'"wave":1,"r\\u0065l":6'),
        ("duplicate_name", "twice-nested", "twice, further inside", b'"wave":1', b'"wave":1,"x":{"a":1,"a":1}'),
        ("too_deep", "five-levels", "one level too many", b'"wave":1', b'"wave":1,"x":[[[[1]]]]'),
    ]
    edited = [refused(r, f"payload-{n}", why, payload_bundle((old, new))) for r, n, why, old, new in edits]
    recall = refused("bad_base64", "recall-space-behind", "one byte behind a recall", recalled() + b" ", clock=NOW)
    return [*vectors, *edited, recall]


GROUPS = {
    "T01-signature": signatures,
    "T02-header": headers,
    "T03-type": types,
    "T31-framing": framing,
    "T31-payload": payloads,
}
