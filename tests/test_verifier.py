"""The reference verifier: every golden vector, mutants of a good bundle, random bytes, and its own surface."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator import verifier
from orchestrator.verifier import (
    ARTIFACT,
    REASONS,
    TRIGGER,
    Component,
    Device,
    PublicKey,
    Refused,
    check_url,
    load_keys,
    load_keyset,
    open_token,
    verify,
)
from tests.golden import kit, make_vectors

FILES = sorted(make_vectors.DIRECTORY.glob("*.json"))
PROTOCOL = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def read_device(state: Mapping[str, Any]) -> Device:
    keys = json.dumps({"v": 1, "iss": state["iss"], "ep": state["ep"], "keys": state["keys"]}).encode()
    return Device(
        id=state["id"],
        groups=tuple(state["groups"]),
        model=state["model"],
        iss=state["iss"],
        ep=state["ep"],
        keys=load_keys(keys),
        components={entry["name"]: Component(**entry) for entry in state["components"]},
        allowed_origins=tuple(state["allowed_origins"]),
        loopback=state["loopback"],
    )


def outcome(vector: Mapping[str, Any], device: Device) -> dict[str, Any]:
    try:
        verdict = verify(vector["bundle"].encode("latin-1"), device, vector["clock"])
    except Refused as refusal:
        return {"reason": refusal.code}
    component = dataclasses.asdict(verdict.component)
    return {"kind": verdict.kind, "token_hash": verdict.token_hash, "component": component}


def vectors() -> list[dict[str, Any]]:
    found = []
    for path in FILES:
        document = json.loads(path.read_text())
        for vector in document["vectors"]:
            found.append(vector | {"device": document["device"] | vector["device"]})
    return found


VECTORS = vectors()
GOOD = kit.bundle()
DEVICE = read_device(kit.DEVICE)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['class']}-{vector['name']}")
def test_vector(vector: dict[str, Any]) -> None:
    assert outcome(vector, read_device(vector["device"])) == vector["expected"]


def test_the_files_are_what_the_generator_makes() -> None:
    made = make_vectors.build()
    assert {path.name for path in FILES} == set(made)
    assert [path.name for path in FILES if path.read_bytes() != made[path.name]] == []


def test_names_are_unique_and_the_corpus_is_large_enough() -> None:
    hostile = [vector for vector in VECTORS if "reason" in vector["expected"]]
    assert len({(vector["class"], vector["name"]) for vector in VECTORS}) == len(VECTORS)
    assert len(hostile) >= 140
    assert len(VECTORS) - len(hostile) >= 25


def test_every_reason_has_a_vector() -> None:
    seen = {vector["expected"].get("reason") for vector in VECTORS}
    assert set(REASONS) - seen == {"bad_keys"}  # that one is about the document of keys


def test_every_code_that_is_raised_has_a_sentence() -> None:
    source = Path(verifier.__file__).read_text()
    assert set(re.findall(r'(?:Refused|_require)\(\s*"([a-z0-9_]+)"', source)) == set(REASONS)


def test_it_is_one_small_module_without_dependencies() -> None:
    source = Path(verifier.__file__).read_text()
    imported = {line.split()[1].partition(".")[0] for line in source.splitlines() if re.match("(import|from) ", line)}
    assert imported - sys.stdlib_module_names == {"cryptography"}
    assert len(source.splitlines()) <= 390


def test_the_protocol_prints_the_table_of_reasons() -> None:
    printed = dict(re.findall(r"^\| `([a-z0-9_]+)` \| ([A-Z].+\.) \|$", PROTOCOL, re.MULTILINE))
    assert printed == dict(REASONS)


def test_a_refusal_carries_claims_only_when_it_is_ours() -> None:
    with pytest.raises(Refused) as ours:
        verify(kit.bundle({"seq": 100}), DEVICE, kit.NOW)
    assert (ours.value.claims["att"], ours.value.claims["seq"]) == ("7.1", 100)
    assert str(ours.value) == "stale_seq: 100 is not above 100"
    for foreign in (kit.bundle({"aud": ["d:other"]}), GOOD.replace(b"\n", b"A\n"), b"x"):
        with pytest.raises(Refused) as refusal:
            verify(foreign, DEVICE, kit.NOW)
        assert refusal.value.claims == {}


def test_the_verdict_carries_claims_and_statement() -> None:
    verdict = verify(GOOD, DEVICE, kit.NOW)
    assert verdict.claims["url"] == [kit.URL]
    assert verdict.statement == kit.statement()
    assert verify(kit.recalled(), DEVICE, kit.NOW).statement is None


def substitutions(token: bytes, place: int) -> set[bytes]:
    old = token[place : place + 1]
    neighbour = BASE64[(BASE64.find(old) + 1) % 64 :][:1]
    return {old.swapcase(), neighbour, b".", b"\xff", b"\n", b"A", bytes([old[0] ^ 1])} - {old}


@pytest.mark.parametrize("good", [GOOD, kit.recalled()], ids=["trigger", "recall"])
def test_no_single_byte_mutant_is_accepted(good: bytes) -> None:
    tried = 0
    for place in range(len(good)):
        for new in substitutions(good, place):
            with pytest.raises(Refused):
                verify(good[:place] + new + good[place + 1 :], DEVICE, kit.NOW)
            tried += 1
    assert tried >= 4 * len(good)


@pytest.mark.parametrize("good", [GOOD, kit.recalled()], ids=["trigger", "recall"])
def test_no_truncation_extension_or_deletion_is_accepted(good: bytes) -> None:
    truncated = [good[:end] for end in range(len(good))]
    shortened = [good[:place] + good[place + 1 :] for place in range(len(good))]
    extended = [good + bytes([byte]) for byte in range(256)] + [bytes([byte]) + good for byte in range(256)]
    for mutant in (*truncated, *shortened, *extended):
        with pytest.raises(Refused):
            verify(mutant, DEVICE, kit.NOW)


@given(st.binary(max_size=3000), st.none() | st.integers(0, 2**53))
@example(b"", None)
def test_random_bytes_are_refused(data: bytes, now: int | None) -> None:
    with pytest.raises(Refused) as refusal:
        verify(data, DEVICE, now)
    assert refusal.value.code in REASONS


@given(st.binary(max_size=1300))
def test_random_payloads_under_a_good_signature_are_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        verify(kit.trigger_key.token(payload) + b"\n" + GOOD, DEVICE, kit.NOW)
    assert refusal.value.code in REASONS


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(kit.offer())), VALUES)
def test_a_random_field_is_accepted_or_refused_and_never_crashes(name: str, value: object) -> None:
    line = kit.artifact_key.token(kit.statement())
    claims = kit.offer({"ast": kit.token_hash(line)}) | {name: value}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    try:
        verdict = verify(kit.trigger_key.token(payload) + b"\n" + line, DEVICE, kit.NOW)
    except Refused as refusal:
        assert refusal.code in REASONS
    else:
        assert verdict.claims == claims


@settings(max_examples=300)
@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z0-9.:@\[\]\\/?#-]{0,40}", fullmatch=True))
def test_a_random_url_is_refused(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_url(url, DEVICE)
    assert refusal.value.code.startswith("url_")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='#"<>\\^`{|}'), max_size=60))
def test_any_path_of_an_allowed_origin_is_accepted(path: str) -> None:
    check_url(f"{kit.ORIGIN}/{path}", DEVICE)


def test_a_url_has_a_longest_length() -> None:
    check_url(kit.ORIGIN + "/" + "a" * (4095 - len(kit.ORIGIN)), DEVICE)
    with pytest.raises(Refused, match="url_malformed"):
        check_url(kit.ORIGIN + "/" + "a" * (4096 - len(kit.ORIGIN)), DEVICE)


def test_a_statement_opens_alone() -> None:
    assert open_token(GOOD.split(b"\n")[1], ARTIFACT, DEVICE.keys) == kit.statement()


def test_a_key_off_the_curve_verifies_nothing() -> None:
    broken = PublicKey("trigger-1", TRIGGER, bytes(31) + b"\x01", bytes(31) + b"\x01")
    with pytest.raises(Refused) as refusal:
        verify(GOOD, dataclasses.replace(DEVICE, keys={"trigger-1": broken}), kit.NOW)
    assert refusal.value.code == "bad_keys"


def document(**changes: Any) -> bytes:
    keys = [kit.trigger_key.public, kit.artifact_key.public]
    return json.dumps({"v": 1, "iss": "test-fleet", "ep": 3, "keys": keys} | changes).encode()


def test_the_document_of_keys_is_read() -> None:
    keyset = load_keyset(document())
    assert (keyset.iss, keyset.ep, list(keyset.keys)) == ("test-fleet", 3, ["trigger-1", "artifact-1"])
    assert keyset.keys["trigger-1"] == PublicKey("trigger-1", TRIGGER, kit.trigger_key.x, kit.trigger_key.y)


ONE = kit.trigger_key.public


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("bad_keys", document(keys=[ONE, ONE])),
        ("bad_keys", document(keys=[ONE, kit.artifact_key.public | {"kid": "trigger-1"}])),
        ("bad_keys", document(keys=[ONE, ONE | {"kid": "alias"}])),
        ("bad_keys", document(keys=[ONE, ONE | {"kid": "alias", "typ": ARTIFACT}])),
        ("bad_keys", document(keys=[ONE | {"y": kit.IMAGE}])),
        ("bad_keys", document() + b" " * 8192),
        ("bad_field", document(keys=[])),
        ("bad_field", document(keys=[ONE] * 17)),
        ("bad_field", document(keys=["trigger-1"])),
        ("bad_field", document(keys=[ONE | {"typ": "ota-boot+jws"}])),
        ("bad_field", document(keys=[ONE | {"kid": "../k"}])),
        ("bad_field", document(keys=[ONE | {"x": ONE["x"][:42]}])),
        ("missing_field", document(keys=[{"kid": "trigger-1"}])),
        ("bad_field", document(v=2)),
        ("bad_field", document(iss="Fleet")),
        ("bad_field", document(ep=0)),
        ("bad_json", b"[]"),
        ("bad_json", b""),
        ("too_deep", b'{"v":' + b"[" * 4000 + b"]" * 4000 + b"}"),
    ],
)
def test_a_bad_document_of_keys_is_refused(code: str, data: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        load_keyset(data)
    assert refusal.value.code == code


def test_the_protocol_shows_an_example_that_holds() -> None:
    blocks = re.findall(r"^```\n(eyJ.+?)\n```$", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert [block.encode() for block in blocks] == [GOOD, kit.recalled()]
    assert kit.HELD in PROTOCOL
