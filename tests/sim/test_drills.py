"""Compromise drills: one part of the system belongs to the attacker, and no device installs what nobody allowed.

The attacker has everything that the part has: its keys, its copies of old messages, its place in the middle.
"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sim.events import Beat, NewKeys
from orchestrator.sim.unit import Phase
from orchestrator.wire.token import TokenType, bundle, encode64, hash_of
from tests.sim.issuer import NOW, Bench, Build, Issuer, Key, profile_with

DEVICE = "sim-00000"
GOOD = Build.make("2.0.0", 2)
EVIL = Build.make("6.6.6", 66, bad=True)


def device(issuer: Issuer, served: Build = GOOD) -> Bench:
    return Bench(profile_with(issuer), served)


def run_to_end(bench: Bench) -> None:
    """Let the device do all that it wants to do."""
    for _ in range(400):
        if bench.unit.phase is Phase.DOWNLOADING:
            bench.serve()
            if bench.unit.phase is Phase.DOWNLOADING:
                return  # it waits for bytes that nobody has
        elif bench.unit.wake_at is None:
            return
        else:
            bench.tick()


def installed(bench: Bench) -> list[str]:
    run_to_end(bench)
    return [note.att for note in bench.notes if note.event == "installed"]


def refusals(bench: Bench) -> list[str]:
    return [note.code for note in bench.notes if note.event == "refused"]


def lines(offer: bytes) -> list[bytes]:
    return offer.split(b"\n")


def with_warrant(offer: bytes, warrant: bytes) -> bytes:
    return bundle([*lines(offer), *lines(warrant)])


# The broker: it holds every message that was ever sent, and sends what it likes.


def test_a_broker_replays_reorders_and_forges_and_nothing_old_or_new_is_installed() -> None:
    issuer = Issuer()
    old = issuer.install(DEVICE, Build.make("1.5.0", 1), "1.1")
    good = issuer.install(DEVICE, GOOD, "2.1")
    recall = issuer.recall(DEVICE, good, "2.1")
    elsewhere = issuer.install("sim-00001", EVIL, "9.1")
    bench = device(issuer)
    bench.command(good)
    assert installed(bench) == ["2.1"]
    for replayed in (old, elsewhere, good, recall, good, bundle(lines(good)[::-1]), lines(good)[0], lines(good)[1]):
        bench.command(replayed)
    assert installed(bench) == ["2.1"]
    assert bench.unit.running.version == "2.0.0"


def test_a_broker_that_mixes_trigger_and_statement_of_two_releases_installs_neither() -> None:
    issuer = Issuer()
    first, second = issuer.install(DEVICE, GOOD, "1.1"), issuer.install(DEVICE, Build.make("3.0.0", 3), "2.1")
    bench = device(issuer)
    bench.command(bundle([lines(second)[0], lines(first)[1]]))
    assert (installed(bench), refusals(bench)) == ([], ["statement_hash"])


def test_a_broker_cannot_push_a_keyset_or_a_beat_of_its_own() -> None:
    issuer, attacker = Issuer(), Issuer()
    bench = device(issuer)
    held = bench.unit.flash
    for forged in (attacker.keyset(2, *attacker.root_keys), issuer.keyset(2, issuer.root_keys[0]), b"", b"x\ny"):
        bench.feed(NewKeys(forged))
    bench.feed(Beat(attacker.beat(900_000, 900_000)))
    bench.feed(Beat(issuer.trigger_key.sign({"v": 1})))
    assert bench.unit.flash == held


# The bucket: the bytes are not those that were signed.


@pytest.mark.parametrize("change", ["other", "longer", "shorter"])
def test_a_bucket_that_serves_other_bytes_is_found_out(change: str) -> None:
    issuer = Issuer()
    data = {"other": EVIL.data[: len(GOOD.data)], "longer": GOOD.data + b"x", "shorter": GOOD.data[:-1]}[change]
    bench = device(issuer, Build(data, "2.0.0", 2))
    bench.command(issuer.install(DEVICE, GOOD))
    for _ in range(200):
        if bench.unit.phase is Phase.DOWNLOADING:
            bench.serve()
        if bench.unit.wake_at is None:
            break
        bench.tick()
    assert [note.att for note in bench.notes if note.event == "installed"] == []
    assert bench.unit.running.version == "1.0.0"


# The daemon's host: the attacker signs triggers and beats.


def own_statement(issuer: Issuer, build: Build, key: Key, **changes: Any) -> bytes:
    return key.sign({"v": 1, **build.claims, "iat": int(NOW), **changes})


def test_the_trigger_key_alone_installs_nothing_that_the_build_did_not_sign() -> None:
    issuer = Issuer()
    self_made = Key("artifact-1", TokenType.ARTIFACT)
    forged = own_statement(issuer, EVIL, self_made)
    by_trigger_key = Key("trigger-1", TokenType.ARTIFACT, issuer.trigger_key.private)
    misused = own_statement(issuer, EVIL, by_trigger_key)
    real = own_statement(issuer, GOOD, issuer.artifact_key)
    bench = device(issuer, EVIL)
    for statement in (forged, misused, real):
        trigger = lines(issuer.install(DEVICE, EVIL, ast=hash_of(statement)))[0]
        bench.command(bundle([trigger, statement]))
        bench.command(trigger)
    assert installed(bench) == []
    assert set(refusals(bench)) <= {
        "statement_missing",
        "bad_signature",
        "unknown_key",
        "wrong_role",
        "statement_field",
        "statement_hash",
    }


def test_the_trigger_key_alone_cannot_go_back_or_call_an_emergency() -> None:
    issuer = Issuer()
    bench = device(issuer)
    bench.command(issuer.install(DEVICE, GOOD, "1.1"))
    assert installed(bench) == ["1.1"]
    bench.command(issuer.install(DEVICE, Build.make("0.9.0", 1), "2.1"))
    bench.command(issuer.install(DEVICE, Build.make("0.9.0", 1), "3.1", act="rollback"))
    bench.command(issuer.install(DEVICE, Build.make("3.0.0", 3), "4.1", urg=3))
    assert installed(bench) == ["1.1"]
    assert refusals(bench) == ["downgrade", "downgrade_not_allowed", "warrant_missing"]


def test_after_the_revocation_every_old_token_is_refused_and_the_fleet_works_on() -> None:
    """The drill of a stolen trigger key: keyset 2 without it, then business as usual."""
    issuer = Issuer()
    thief = issuer.trigger_key
    fleet = [device(issuer) for _ in range(20)]
    hoard = [issuer.install(DEVICE, Build.make(f"{rel}.0.0", rel), f"{rel}.1") for rel in range(2, 12)]
    for bench in fleet[:10]:
        bench.command(hoard[0])  # some are in the middle of it
    issuer.trigger_key = Key("trigger-2", TokenType.TRIGGER)
    keyset = issuer.keyset(2, *issuer.root_keys[:2])
    stolen = Issuer()
    stolen.artifact_key, stolen.trigger_key, stolen.epoch = issuer.artifact_key, thief, 2
    for bench in fleet:
        bench.feed(NewKeys(keyset))
        assert bench.unit.flash.keyset.ep == 2
        for token in hoard:
            bench.command(token)
        bench.command(stolen.install(DEVICE, EVIL, "66.1"))
        assert installed(bench) == []
        assert set(refusals(bench)[-11:]) <= {"wrong_epoch", "unknown_key"}
    issuer.epoch = 2
    for bench in fleet:
        bench.build = GOOD
        bench.command(issuer.install(DEVICE, GOOD, "12.1"))
        assert installed(bench) == ["12.1"]
        bench.feed(NewKeys(keyset))  # again, and it changes nothing
        assert bench.unit.flash.component.seq > 0


def test_an_update_that_was_not_begun_is_given_up_when_the_keys_change() -> None:
    issuer = Issuer()
    bench = device(issuer)
    bench.command(issuer.install(DEVICE, GOOD, "1.1"))
    bench.feed(NewKeys(issuer.keyset(2, *issuer.root_keys[1:])))
    assert installed(bench) == []
    assert [(report.kind.value, report.code) for report in bench.reports][-1] == ("recalled", "new_keys")


# The build key: the attacker signs statements.


def test_the_artifact_key_alone_installs_nothing() -> None:
    issuer = Issuer()
    statement = own_statement(issuer, EVIL, issuer.artifact_key)
    by_artifact_key = Key("artifact-1", TokenType.TRIGGER, issuer.artifact_key.private)
    attacker = Issuer()
    attacker.artifact_key, attacker.trigger_key = issuer.artifact_key, by_artifact_key
    bench = device(issuer, EVIL)
    for message in (statement, bundle([statement, statement]), attacker.install(DEVICE, EVIL)):
        bench.command(message)
    assert installed(bench) == []
    issuer.artifact_key = Key("artifact-2", TokenType.ARTIFACT)
    bench.feed(NewKeys(issuer.keyset(2, *issuer.root_keys[:2])))
    issuer.epoch = 2
    trigger = lines(issuer.install(DEVICE, EVIL, ast=hash_of(statement)))[0]
    bench.command(bundle([trigger, statement]))
    assert (installed(bench), refusals(bench)[-1]) == ([], "unknown_key")


# One operator: the attacker holds one cosigner's key and all that the daemon has.


def emergency(issuer: Issuer, warrant_of: Any, **changes: Any) -> bytes:
    offer = issuer.install(DEVICE, GOOD, "1.1", urg=3, **{"cid": "r1"} | changes)
    return with_warrant(offer, warrant_of(lines(offer)[1]))


def test_one_cosigner_is_not_two() -> None:
    issuer = Issuer()
    ada = issuer.cosigners[0]
    second_key = Key("cosign-ada-2", TokenType.COSIGN, who="ada")
    bench = device(issuer)
    for signers in (
        [ada],
        [ada, ada],
        [ada, Key("cosign-bob", TokenType.COSIGN, ada.private, "bob")],
        [ada, second_key],
    ):
        bench.command(emergency(issuer, lambda statement, signers=signers: issuer.warrant(statement, *signers)))
    assert installed(bench) == []
    assert set(refusals(bench)) <= {"too_few_signers", "signed_twice", "bad_signature", "unknown_key"}
    assert len(refusals(bench)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"cid": "r2"},
        {"asts": [encode64(bytes(32))]},
        {"aud": ["m:sim-b"]},
        {"exp": int(NOW) - 1, "iat": int(NOW) - 100},
        {"ep": 2},
        {"iss": "other"},
    ],
)
def test_a_warrant_for_something_else_allows_nothing(changes: dict[str, Any]) -> None:
    issuer = Issuer()
    bench = device(issuer)
    bench.command(emergency(issuer, lambda statement: issuer.warrant(statement, *issuer.cosigners[:2], **changes)))
    assert installed(bench) == []
    assert refusals(bench)


def test_two_cosigners_allow_the_emergency_that_they_signed() -> None:
    issuer = Issuer()
    bench = device(issuer)
    bench.command(emergency(issuer, lambda statement: issuer.warrant(statement, *issuer.cosigners[1:])))
    assert installed(bench) == ["1.1"]


def test_what_lies_below_the_floor_of_the_beat_is_not_begun() -> None:
    issuer = Issuer()
    waiting = issuer.install(DEVICE, GOOD, "1.1")
    bench = device(issuer)
    bench.feed(Beat(issuer.beat(1, 2)))
    bench.command(waiting)
    assert (installed(bench), refusals(bench)) == ([], ["below_floor"])
    bench.command(issuer.install(DEVICE, GOOD, "1.1"))
    assert installed(bench) == ["1.1"]


def test_a_keyset_needs_the_old_roots_and_the_new_ones() -> None:
    issuer = Issuer()
    bench = device(issuer)
    old, issuer.root_keys = issuer.root_keys, [Key(f"root-{number}", TokenType.KEYS) for number in (4, 5, 6)]
    for signers in (old[:2], issuer.root_keys[:2], [old[0], *issuer.root_keys[:2]]):
        bench.feed(NewKeys(issuer.keyset(2, *signers)))
        assert bench.unit.flash.keyset.ep == 1
    bench.feed(NewKeys(issuer.keyset(2, *old[:2], *issuer.root_keys[:2])))
    assert bench.unit.flash.keyset.ep == 2
