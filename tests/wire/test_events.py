"""Events: made of the audit log, the same each time, described by one schema, signed as others expect it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Yardstick
from standardwebhooks.webhooks import WebhookVerificationError

from orchestrator.core.trust.audit import START, Entry, follow
from orchestrator.errors import RequestError
from orchestrator.wire import events

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SECRET, OTHER = events.secret_text(bytes(range(32))), events.secret_text(bytes(32))
AT = 1_800_000_000.25
MOVED = {"from": "running", "to": "running", "stage": 0, "code": "passed", "reason": "2 of 900 failed"}
TOLD: list[tuple[str, str, dict[str, Any]]] = [
    ("rollout.created", "spring", {"id": 7, "release": "radio-2", "urgency": "normal", "stages": 3}),
    *[
        ("rollout.moved", "spring", MOVED | {"from": before, "to": phase, "code": code})
        for before, phase, code in (
            ("draft", "preparing", "operator_start"),
            ("preparing", "running", "prepared"),
            ("running", "paused", "operator_pause"),
            ("running", "halted", "evidence"),
            ("running", "inconclusive", "inconclusive"),
            ("running", "done", "passed"),
            ("running", "aborted", "operator_abort"),
        )
    ],
    ("rollout.moved", "spring", MOVED | {"stage": 1, "passed": 0}),
    ("rollout.moved", "spring", MOVED | {"code": "operator_advance"}),
    ("rollout.asks", "spring", {"stage": 1, "reason": "enough; the plan wants a person to say so too"}),
    ("rollout.edited", "spring", {"version": 2, "reason": "slower", "sha256": "ab"}),
    *[
        (f"approval.{state}", "start spring", {"proposal": 4, "text": "start of spring", "digest": "ab", "needed": 1})
        for state in ("proposed", "used", "expired", "void")
    ],
    ("approval.vote", "4", {"approves": True, "person": "cleo", "reason": "looked at it", "state": "approved"}),
    (
        "glass.broken",
        "start spring",
        {"review": 1, "text": "start of spring", "digest": "ab", "reason": "under attack"},
    ),
    ("devices.quarantined", "dev-0001", {"count": 1, "sha256": "ab", "reason": "failed in its last 2 rollouts"}),
    ("devices.released", "2 devices", {"count": 2, "sha256": "ab", "reason": "repaired"}),
    ("artifact.imported", "47DEQpj8", {"name": "radio", "version": "2.0.0", "rel": 2, "size_bytes": 1000}),
    ("artifact.refused", "s3://releases/fw.bin", {"code": "hash_mismatch", "reason": "the bytes are others"}),
    ("expiry.near", "certificate of the broker", {"expires_at": AT + 86_400, "threshold_days": 1}),
    ("expiry.expired", "trigger key", {"expires_at": AT, "threshold_days": 0}),
    ("link.lost", "broker", {"since": 1_799_999_940}),
    ("link.back", "broker", {"since": 1_799_999_940, "lasted_s": 300}),
    ("outage.began", "fleet", {"gone": 40, "connected": 60}),
    ("outage.ended", "fleet", {"gone": 0, "connected": 100, "why": "back", "lasted_s": 120}),
    *[
        (f"webhook.{word}", "wh_0102030405ff", {"to": "https://hooks.example.net", "reason": reason})
        for word, reason in (
            ("failing", "it answered 500"),
            ("recovered", ""),
            ("disabled", "it answered 410"),
            ("test", "asked by an admin"),
        )
    ],
]


def entry(action: str, object_: str, detail: dict[str, Any], n: int = 1) -> Entry:
    return follow(START, AT, "ann", action, object_, detail, n=n)


def event(action: str, object_: str, detail: dict[str, Any], n: int = 1) -> events.Event:
    found = events.event_of(entry(action, object_, detail, n), "my-fleet")
    assert found is not None
    return found


def test_the_examples_are_what_is_sent() -> None:
    lines = [events.encode(event(*told, n=n)).decode() for n, told in enumerate(TOLD, 1)]
    assert (EXAMPLES / "events.jsonl").read_text() == "\n".join(lines) + "\n"


def test_there_is_an_example_of_every_event_and_it_meets_the_schema() -> None:
    judge = jsonschema.Draft202012Validator(events.schema())
    seen = set()
    for line in (EXAMPLES / "events.jsonl").read_text().splitlines():
        judge.validate(json.loads(line))
        seen.add(json.loads(line)["type"])
    assert seen == set(events.CATALOGUE)
    wrong = json.loads(line) | {"type": "rollout.halted", "data": {"object": 1, "actor": "ann"}}
    assert not judge.is_valid(wrong)
    assert not judge.is_valid(json.loads(line) | {"type": "rollout.unheard"})


def test_the_shipped_schema_is_that_of_the_code() -> None:
    assert json.loads((EXAMPLES / "events.schema.json").read_text()) == events.schema()


def test_a_moved_rollout_is_named_by_where_it_went() -> None:
    kinds = [event(*told).type for told in TOLD if told[0] == "rollout.moved"]
    assert kinds == [
        *[f"rollout.{phase}" for phase in ("preparing", "running", "paused", "halted", "inconclusive", "done")],
        "rollout.aborted",
        "rollout.stage_passed",
        "rollout.noted",
    ]


def test_what_is_no_event_is_none() -> None:
    assert events.event_of(entry("deliveries.sealed", "seq 1 to 2", {"first": 1}), "my-fleet") is None
    assert events.event_of(entry("operator.token_issued", "ann", {"token": "0a"}), "my-fleet") is None


def test_an_entry_that_says_it_otherwise_is_an_event_all_the_same() -> None:
    found = event("rollout.created", "spring", {"release": ["what"], "stages": "three"})
    assert found.data == events.RolloutCreated(object="spring", actor="ann")


def test_the_identifier_is_that_of_the_entry() -> None:
    one, again = event("rollout.created", "spring", {}), event("rollout.created", "spring", {})
    assert events.encode(one) == events.encode(again)
    assert one.id == f"evt_1_{entry('rollout.created', 'spring', {}).hash[:16]}"
    assert event("rollout.created", "autumn", {}).id != one.id
    assert event("rollout.created", "spring", {}, n=2).id != one.id


def test_signatures_are_those_of_the_library_of_the_standard() -> None:
    now = int(time.time())
    body = events.encode(event("rollout.created", "späte \u2028 Ziele", {}))
    sent = dict(events.headers_of([SECRET], "evt_1", now, body))
    assert Yardstick(SECRET).verify(body, sent)["data"]["object"] == "späte \N{REPLACEMENT CHARACTER} Ziele"
    for wrong in (body + b" ", body.replace(b"ann", b"eve")):
        with pytest.raises(WebhookVerificationError):
            Yardstick(SECRET).verify(wrong, sent)
    with pytest.raises(WebhookVerificationError):
        Yardstick(OTHER).verify(body, sent)
    with pytest.raises(WebhookVerificationError):
        Yardstick(SECRET).verify(body, sent | {"webhook-id": "evt_2"})


@pytest.mark.parametrize("forged", [False, True])
def test_what_the_page_shows_for_receivers_works(tmp_path: Path, forged: bool) -> None:
    page = (EXAMPLES.parent / "webhooks.md").read_text()
    python, shell = (
        re.search(f"```{word}\n(.*?)```", page[page.index("In Python") :], re.S) for word in ("python", "sh")
    )
    assert python
    assert shell
    body = '{"ü": 1}\n'.encode()
    sent = dict(events.headers_of([OTHER, SECRET], "evt_1", int(time.time()), body))
    got = body + b" " if forged else body
    known: dict[str, Any] = {}
    exec(python[1], known)
    assert known["is_ours"](SECRET, sent, got) is not forged
    (tmp_path / "hook.secret").write_text(f"{SECRET}\n")
    (tmp_path / "body").write_bytes(got)
    given = {"ID": "evt_1", "AT": sent["webhook-timestamp"], "SIGNATURE": sent["webhook-signature"]}
    said = subprocess.check_output(["sh", "-eu", "-c", shell[1]], cwd=tmp_path, env=os.environ | given, text=True)
    assert said == ("bad\n" if forged else "good\n")


def test_while_there_are_two_secrets_either_of_them_verifies() -> None:
    sent = dict(events.headers_of([OTHER, SECRET], "evt_1", int(time.time()), b"{}"))
    for secret in (SECRET, OTHER):
        assert Yardstick(secret).verify(b"{}", sent) == {}


@pytest.mark.parametrize(
    ("word", "kind", "meant"),
    [
        ("*", "rollout.halted", True),
        ("rollout.*", "rollout.halted", True),
        ("rollout.halted", "rollout.halted", True),
        ("rollout.halted", "rollout.paused", False),
        ("roll*", "rollout.halted", False),
        ("rollout", "rollout.halted", False),
        ("device.*", "devices.quarantined", False),
    ],
)
def test_words_mean_events(word: str, kind: str, meant: bool) -> None:
    assert events.is_meant([word], kind) is meant


@pytest.mark.parametrize("word", ["", "rollout", "rollout.unheard", ".*", "**"])
def test_a_word_that_means_nothing_is_refused(word: str) -> None:
    with pytest.raises(RequestError, match="means no event"):
        events.check_wanted([word])
    with pytest.raises(RequestError, match="say which events"):
        events.check_wanted([])


_json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
_names = st.sampled_from(["from", "to", "stage", "code", "passed", "reason", "object", "actor", "count"]) | st.text()


@given(
    st.sampled_from([*events.CATALOGUE, "rollout.moved"]),
    st.text(),
    st.dictionaries(_names, _json | st.sampled_from(["running", "halted"])),
)
def test_every_entry_of_its_kind_is_an_event_that_meets_the_schema(
    action: str, object_: str, detail: dict[str, Any]
) -> None:
    found = event(action, object_, detail)
    said = json.loads(events.encode(found))
    assert said["data"]["actor"] == "ann"
    JUDGE.validate(said)


JUDGE = jsonschema.Draft202012Validator(events.schema())
