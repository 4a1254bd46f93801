"""Claims: exact members, and that devices accept whatever the daemon can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Artifact
from orchestrator.core.pace.requirement import Link, Requirements, Unknown
from orchestrator.core.trigger import (
    Issue,
    beat_claims,
    conditions,
    install_claims,
    keyset_claims,
    recall_claims,
    statement_claims,
    warrant_claims,
)
from orchestrator.verifier import Component, Device, PublicKey, take_beat, take_keyset, verify
from orchestrator.wire.token import (
    TokenType,
    assemble,
    assemble_further,
    bundle,
    further_input,
    hash_of,
    signing_input,
)
from tests.golden import kit, ours

ARTIFACT = Artifact(
    sha256=kit.IMAGE,
    size_bytes=4096,
    name="door",
    version="5.0.0",
    rel=5,
    sec=1,
    component="main",
    hardware=("esp32-c3", "esp32-c6"),
    format="raw",
    min_from=2,
    statement="",
    uri="file:///door.bin",
    source_version=None,
)
ISSUE = Issue(
    deployment="test-fleet",
    epoch=3,
    device="door-17",
    rollout="r-12",
    update_id=7,
    attempt=2,
    seq=101,
    jti="AAECAwQFBgcI",
    issued_at=kit.NOW + 0.9,
    expires_at=kit.NOW + 3600.9,
)


def test_install_claims() -> None:
    claims = install_claims(ISSUE, ARTIFACT, stage=1, urls=[kit.URL], statement_hash=kit.OTHER_IMAGE)
    assert list(claims.items()) == [
        ("v", 1),
        ("iss", "test-fleet"),
        ("ep", 3),
        ("aud", ["d:door-17"]),
        ("comp", "main"),
        ("cid", "r-12"),
        ("act", "install"),
        ("seq", 101),
        ("jti", "AAECAwQFBgcI"),
        ("att", "7.2"),
        ("iat", kit.NOW),
        ("exp", kit.NOW + 3600),
        ("wave", 1),
        ("name", "door"),
        ("ver", "5.0.0"),
        ("rel", 5),
        ("sec", 1),
        ("hw", ["esp32-c3", "esp32-c6"]),
        ("from", 2),
        ("size", 4096),
        ("sha256", kit.IMAGE),
        ("fmt", "raw"),
        ("url", [kit.URL]),
        ("ast", kit.OTHER_IMAGE),
        ("urg", 1),
    ]


def test_urgency_and_policy() -> None:
    claims = install_claims(
        ISSUE,
        ARTIFACT,
        stage=0,
        urls=[kit.URL],
        statement_hash=kit.IMAGE,
        urgency=2,
        policy={"jit": 60},
    )
    assert (claims["urg"], claims["pol"]) == (2, {"jit": 60})


@pytest.mark.parametrize(
    ("required", "policy"),
    [
        (Requirements(), {}),
        (Requirements(max_age_s=1.0, unknown=Unknown.ALLOW), {}),  # about what was said, not about what is
        (Requirements(battery_pct=30), {"bat": 30}),
        (Requirements(battery_pct=0), {}),
        (Requirements(charging=True), {"chg": 1}),
        (Requirements(free_bytes=4096), {"free": 4096}),
        (Requirements(free_bytes=0), {"free": 0}),
        (Requirements(free_bytes=2**60), {"free": 2**53 - 1}),
        (Requirements(links=frozenset({Link.WIFI, Link.ETHERNET})), {"link": ["ethernet", "wifi"]}),
        (Requirements(unmetered=True), {"unm": 1}),
        (Requirements(uptime_s=0.1), {"up": 1}),
        (Requirements(uptime_s=600.0), {"up": 600}),
        (Requirements(uptime_s=1e300), {"up": 34_560_000}),
    ],
)
def test_what_a_plan_requires_stands_in_the_policy(required: Requirements, policy: dict[str, object]) -> None:
    assert conditions(required) == policy


STRICTEST = Requirements(100, True, 2**60, frozenset(Link), True, 1e9)


def test_a_trigger_with_every_condition_fits_whatever_its_names_are() -> None:
    word, largest = "x" * 64, 2**53 - 1
    artifact = replace(
        ARTIFACT, name=word, version=word, component=word, hardware=(word,), format=word, rel=largest, sec=largest
    )
    artifact = replace(artifact, min_from=largest, size_bytes=largest)
    issue = replace(
        ISSUE, deployment=word, device=word, rollout=str(2**53), update_id=10**18 - 1, attempt=9999, seq=largest
    )
    url = "https://" + "d" * 102 + f"/v1/dl/{kit.IMAGE}"

    def sized(required: Requirements) -> bytes:
        claims = install_claims(
            issue, artifact, stage=9999, urls=[url], statement_hash=kit.IMAGE, policy=conditions(required)
        )
        return signing_input(TokenType.TRIGGER, word, claims)

    assert 146 <= len(sized(STRICTEST)) - len(sized(Requirements())) <= 147


def test_recall_claims() -> None:
    claims = recall_claims(replace(ISSUE, seq=102), component="main", token_hash=kit.IMAGE)
    assert claims == {
        "v": 1,
        "iss": "test-fleet",
        "ep": 3,
        "aud": ["d:door-17"],
        "comp": "main",
        "cid": "r-12",
        "act": "cancel",
        "seq": 102,
        "jti": "AAECAwQFBgcI",
        "att": "7.2",
        "iat": kit.NOW,
        "exp": kit.NOW + 3600,
        "tok": kit.IMAGE,
    }


def test_statement_claims() -> None:
    claims = statement_claims(ARTIFACT, issued_at=kit.NOW + 0.5)
    assert claims == kit.statement({"hw": ["esp32-c3", "esp32-c6"], "from": 2, "iat": kit.NOW})
    ending = statement_claims(ARTIFACT, issued_at=kit.NOW, expires_at=kit.NOW + 9.5)
    assert ending == claims | {"exp": kit.NOW + 9}


def test_warrant_claims() -> None:
    claims = warrant_claims(
        deployment="test-fleet",
        epoch=3,
        rollout="r-12",
        statement_hashes=(kit.STATED,),
        audience=("m:esp32-c3",),
        most=50_000,
        issued_at=kit.NOW - 599.5,
        expires_at=kit.NOW + 86_400.9,
    )
    assert list(claims.items()) == list(kit.warrant().items())


def test_beat_claims() -> None:
    claims = beat_claims(
        deployment="test-fleet",
        epoch=3,
        seq=140,
        floor=90,
        issued_at=kit.NOW - 59.5,
        expires_at=kit.NOW + 86_400.9,
    )
    assert list(claims.items()) == list(kit.beat().items())


def test_keyset_claims() -> None:
    keys = kit.keyset()["keys"]
    said = {"deployment": "test-fleet", "epoch": 4, "keys": keys, "need_root": 2, "need_cosign": 2}
    claims = keyset_claims(**said, issued_at=kit.NOW - 59.5)
    assert list(claims.items()) == list(kit.keyset().items())
    assert claims["keys"] is not keys
    ending = keyset_claims(**said, issued_at=kit.NOW - 60, expires_at=kit.NOW + 9.9)
    assert ending == claims | {"exp": kit.NOW + 9}


def test_devices_take_what_several_sign() -> None:
    device = ours.read_device(kit.SECURED)
    beat = beat_claims(
        deployment="test-fleet", epoch=3, seq=0, floor=0, issued_at=kit.NOW, expires_at=kit.NOW + 7 * 86_400
    )
    assert take_beat(sealed(TokenType.BEAT, kit.beat_key, beat), device, kit.NOW).beat_iat == kit.NOW
    keyset = keyset_claims(
        deployment="test-fleet",
        epoch=4,
        keys=kit.keyset()["keys"],
        need_root=2,
        need_cosign=2,
        issued_at=kit.NOW,
        expires_at=kit.NOW + 1,
    )
    assert take_keyset(signed_by_all(TokenType.KEYS, kit.roots[1:3], keyset), device, kit.NOW).ep == 4
    warrant = warrant_claims(
        deployment="test-fleet",
        epoch=3,
        rollout="r-12",
        statement_hashes=[kit.STATED],
        audience=["g:eu"],
        most=1,
        issued_at=kit.NOW,
        expires_at=kit.NOW + 30 * 86_400,
    )
    signed = signed_by_all(TokenType.COSIGN, (kit.ann, kit.bob), warrant)
    assert verify(kit.emergency(signed), device, kit.NOW).kind == "install"


def signed_by_all(typ: TokenType, keys: Sequence[kit.Key], claims: dict[str, object]) -> bytes:
    lines = [sealed(typ, keys[0], claims)]
    for key in keys[1:]:
        further = further_input(typ, key.kid, lines[0])
        lines.append(assemble_further(further, key.sign(further)))
    return bundle(lines)


def sealed(typ: TokenType, key: kit.Key, claims: dict[str, object]) -> bytes:
    signed = signing_input(typ, key.kid, claims)
    return assemble(signed, key.sign(signed))


IDENTIFIERS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,40}", fullmatch=True)
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
COUNTERS = st.integers(1, 2**53 - 1)


@settings(max_examples=100)
@given(
    artifact=st.builds(
        replace,
        st.just(ARTIFACT),
        name=TEXTS,
        version=TEXTS,
        rel=st.integers(3, 2**53 - 1),
        component=IDENTIFIERS,
        size_bytes=COUNTERS,
        hardware=st.lists(IDENTIFIERS, min_size=1, max_size=4).map(tuple),
        format=IDENTIFIERS,
    ),
    issue=st.builds(
        replace,
        st.just(ISSUE),
        deployment=IDENTIFIERS,
        device=IDENTIFIERS,
        rollout=IDENTIFIERS,
        seq=st.integers(1, 1_000_000),
        update_id=st.integers(1, 10**18 - 1),
        attempt=st.integers(1, 9999),
    ),
    stage=st.integers(0, 1000),
    urgency=st.integers(0, 2),
    required=st.builds(
        Requirements,
        battery_pct=st.none() | st.integers(0, 100),
        charging=st.booleans(),
        free_bytes=st.none() | st.integers(0, 2**80),
        links=st.frozensets(st.sampled_from(Link)),
        unmetered=st.booleans(),
        uptime_s=st.none() | st.floats(0.0, exclude_min=True, allow_nan=False),
    ),
)
def test_devices_accept_what_is_offered_and_then_recalled(
    artifact: Artifact, issue: Issue, stage: int, urgency: int, required: Requirements
) -> None:
    statement = sealed(TokenType.ARTIFACT, kit.artifact_key, statement_claims(artifact, issued_at=kit.NOW))
    claims = install_claims(
        issue,
        artifact,
        stage=stage,
        urls=[kit.URL],
        statement_hash=hash_of(statement),
        urgency=urgency,
        policy=conditions(required),
    )
    trigger = sealed(TokenType.TRIGGER, kit.trigger_key, claims)
    device = device_of(issue, artifact, Component(artifact.component, rel=2, sec=0, seq=0))
    verdict = verify(bundle([trigger, statement]), device, kit.NOW + 1)
    assert (verdict.kind, verdict.token_hash, verdict.claims) == ("install", hash_of(trigger), claims)

    recall = recall_claims(replace(issue, seq=issue.seq + 1), component=artifact.component, token_hash=hash_of(trigger))
    holding = device_of(issue, artifact, verdict.component)
    after = verify(sealed(TokenType.TRIGGER, kit.trigger_key, recall), holding, kit.NOW + 1)
    assert (after.kind, after.component.seq, after.component.held) == ("recall", issue.seq + 1, "")


def device_of(issue: Issue, artifact: Artifact, component: Component) -> Device:
    keys = {key.kid: PublicKey(key.kid, key.typ, key.x, key.y) for key in (kit.trigger_key, kit.artifact_key)}
    return Device(
        id=issue.device,
        groups=(),
        model=artifact.hardware[0],
        iss=issue.deployment,
        ep=issue.epoch,
        keys=keys,
        components={component.name: component},
        allowed_origins=(kit.ORIGIN,),
    )
