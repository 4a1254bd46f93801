"""The chain, its checkpoints and the deliveries: whatever is changed below a checkpoint is found."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.trust.audit import (
    MAX_TEXT,
    RESTORED,
    SEALED,
    START,
    STARTED,
    Checkpoint,
    Entry,
    Examination,
    Findings,
    Head,
    batch_detail,
    clean,
    digest,
    follow,
    names_hash,
)

TAMPERINGS = 1000
EVERY = 16


def sign(entry: Entry) -> Checkpoint:
    return Checkpoint(entry.n, entry.hash, entry.at, entry.n)


@dataclass
class Log:
    """A log, what was exported of it, and the deliveries beside it."""

    entries: list[Entry]
    checkpoints: list[Checkpoint]
    deliveries: dict[int, str]

    def add(self, action: str, detail: dict[str, object] | None = None, n: int | None = None) -> Entry:
        last = self.entries[-1] if self.entries else None
        head = Head(last.n, last.hash) if last else START
        self.entries.append(follow(head, 100.0 + len(self.entries), "ann", action, "spring", detail or {}, n=n))
        return self.entries[-1]

    def checkpoint(self) -> None:
        self.checkpoints.append(sign(self.entries[-1]))

    def seal(self, count: int, *, gap: int = 0) -> None:
        first = max(self.deliveries, default=0) + 1 + gap
        lines = [(seq, f"hash {seq}") for seq in range(first, first + count)]
        self.deliveries |= dict(lines)
        self.add(SEALED, batch_detail(lines))

    def sealed(self, first: int, last: int) -> list[tuple[int, str]]:
        return [(seq, text) for seq, text in sorted(self.deliveries.items()) if first <= seq <= last]

    def examine(self, *, head: Head | None = None, to_the_end: bool = False) -> Findings:
        walk = Examination(self.checkpoints, self.sealed)
        for entry in self.entries:
            walk.look(entry)
        return walk.finish(head, to_the_end=to_the_end)


def make_log(count: int = 100) -> Log:
    """Return a log with a checkpoint every 16 entries; the last few entries are not vouched for."""
    log = Log([], [], {})
    log.add(STARTED, {"seq": 0})
    for at in range(1, count):
        if at % 3 == 0:
            log.seal(1 + at % 5, gap=at % 2)
        else:
            log.add("rollout.moved", {"to": "running", "stage": at, "code": "passed"})
        if len(log.entries) % EVERY == 0:
            log.checkpoint()
    return log


def rehash(entries: Sequence[Entry], start: int) -> list[Entry]:
    """Return the entries with everything from a place on chained anew, as a forger would."""
    made = list(entries[:start])
    for item in entries[start:]:
        prev = made[-1].hash if made else START.hash
        words = (item.n, item.at, item.actor, item.action, item.object, item.detail)
        made.append(replace(item, prev=prev, hash=digest(prev, *words)))
    return made


def renumber(entries: Sequence[Entry]) -> list[Entry]:
    return [replace(item, n=at) for at, item in enumerate(entries, start=1)]


def edit(log: Log, at: int, dice: random.Random) -> None:
    changes: list[dict[str, object]] = [
        {"actor": "eve"},
        {"action": "rollout.left"},
        {"object": "autumn"},
        {"at": log.entries[at].at + 0.001},
        {"detail": '{"to":"done"}'},
        {"detail": log.entries[at].detail.replace(":", ": ")},
        {"hash": "f" * 64},
        {"prev": "e" * 64},
    ]
    log.entries[at] = replace(log.entries[at], **dice.choice(changes))  # type: ignore[arg-type]


def edit_and_rewrite(log: Log, at: int, dice: random.Random) -> None:
    log.entries[at] = replace(log.entries[at], actor="eve", detail=json.dumps({"roll": dice.random()}))
    log.entries = rehash(log.entries, at)


def delete(log: Log, at: int, dice: random.Random) -> None:
    del log.entries[at : at + dice.randint(1, 3)]


def delete_and_rewrite(log: Log, at: int, dice: random.Random) -> None:
    delete(log, at, dice)
    log.entries = rehash(renumber(log.entries), at)


def swap(log: Log, at: int, dice: random.Random) -> None:
    other = (at + dice.randint(1, len(log.entries) - 1)) % len(log.entries)
    log.entries[at], log.entries[other] = log.entries[other], log.entries[at]


def swap_and_rewrite(log: Log, at: int, dice: random.Random) -> None:
    swap(log, at, dice)
    log.entries = rehash(renumber(log.entries), 0)


def truncate(log: Log, at: int, dice: random.Random) -> None:
    del log.entries[at:]


def fork(log: Log, at: int, dice: random.Random) -> None:
    """Another history from here on, longer than the true one."""
    del log.entries[at:]
    for _ in range(dice.randint(1, 150)):
        log.add("rollout.moved", {"to": "halted"})


def hide_behind_a_restore(log: Log, at: int, dice: random.Random) -> None:
    """The tail is dropped, and an entry that the forger wrote says that a restore lost it."""
    lost = len(log.entries)
    del log.entries[at:]
    log.add(RESTORED, {"after": at, "had": lost}, n=lost + 1)
    log.add("rollout.moved")


def insert(log: Log, at: int, dice: random.Random) -> None:
    log.entries.insert(at, replace(log.entries[at], actor="eve"))


def insert_and_rewrite(log: Log, at: int, dice: random.Random) -> None:
    insert(log, at, dice)
    log.entries = rehash(renumber(log.entries), at)


def change_delivery(log: Log, at: int, dice: random.Random) -> None:
    seq = dice.choice(sorted(log.deliveries))
    dice.choice(
        (
            lambda: log.deliveries.update({seq: "hash of another"}),
            lambda: log.deliveries.pop(seq),
            lambda: log.deliveries.update({max(log.deliveries) + 7: "a stray"}),
        )
    )()


TAMPER: tuple[Callable[[Log, int, random.Random], None], ...] = (
    edit,
    edit_and_rewrite,
    delete,
    delete_and_rewrite,
    swap,
    swap_and_rewrite,
    truncate,
    fork,
    hide_behind_a_restore,
    insert,
    insert_and_rewrite,
    change_delivery,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"at": float("inf")},
        {"at": "noon"},
        {"actor": b"eve"},
        {"detail": None},
        {"prev": None},
        {"hash": None},
        {"n": 6.5},
        {"action": RESTORED, "n": 70, "detail": None},
    ],
    ids=str,
)
def test_what_is_no_entry_is_a_fault_and_the_examination_goes_on(changes: dict[str, Any]) -> None:
    log = make_log()
    log.entries[5] = replace(log.entries[5], **changes)
    found = log.examine()
    assert found.faults
    assert found.entries == 100


@pytest.mark.parametrize("number", [2**63, -1, 1.5, "7"])
def test_a_batch_of_no_number_is_a_fault_and_nobody_is_asked_for_it(number: object) -> None:
    log = make_log()
    log.add(SEALED, {"first": 1, "last": number, "count": 1, "sha256": ""})
    log.add(SEALED, {"first": number, "last": 2**64, "count": 1, "sha256": ""})
    found = log.examine()
    assert sum("tells of no batch" in fault for fault in found.faults) == 2


def test_a_log_that_nobody_touched_is_whole() -> None:
    log = make_log()
    last = log.entries[-1]
    found = log.examine(head=Head(last.n, last.hash), to_the_end=True)
    assert (found.faults, found.notes) == ((), ())
    assert (found.entries, found.head) == (100, Head(100, last.hash))
    assert (found.checkpoints, found.vouched) == (6, 96)
    assert (found.batches, found.triggers) == (33, len(log.deliveries))


def test_every_one_of_a_thousand_tamperings_below_the_last_checkpoint_is_found() -> None:
    dice = random.Random(20261121)
    missed, tried = [], 0
    while tried < TAMPERINGS:
        log, tamper = make_log(), TAMPER[tried % len(TAMPER)]
        before = ([*log.entries], {**log.deliveries})
        at = dice.randrange(log.checkpoints[-1].n)
        tamper(log, at, dice)
        if (log.entries, log.deliveries) == before:
            continue  # an edit that changes nothing is none
        tried += 1
        if not log.examine(to_the_end=True).faults:
            missed.append((tamper.__name__, at))
    assert missed == []


def test_a_tail_that_no_checkpoint_vouches_for_can_be_rewritten_unless_the_head_is_known() -> None:
    """The window: this is what a checkpoint file that was not brought up to date does not show."""
    log = make_log()
    last = log.entries[-1]
    log.entries[97] = replace(log.entries[97], actor="eve")
    log.entries = rehash(log.entries, 97)
    assert log.examine().faults == ()
    assert log.examine(head=Head(last.n, last.hash)).faults == (
        "the log ends with entry 100, but its head is entry 100",
    )


def test_without_checkpoints_the_chain_alone_is_checked() -> None:
    log = make_log(20)
    log.checkpoints = []
    assert (log.examine().faults, log.examine().vouched) == ((), 0)
    log.entries[5] = replace(log.entries[5], actor="eve")
    assert log.examine().faults == ("entry 6 was changed: its hash is not that of its words",)


def test_a_restore_explains_what_it_lost_once_a_checkpoint_vouches_for_it() -> None:
    log = make_log(40)
    del log.entries[20:]
    log.add(RESTORED, {"after": 20, "had": 40}, n=41)
    assert log.examine().faults == ("entry 32 is missing, and a checkpoint vouches for it",)
    log.checkpoint()
    found = log.examine()
    assert found.faults == ()
    assert found.notes == ("entries 21 to 40 were lost in the restore that entry 41 tells of",)
    assert (found.vouched, found.head.n) == (41, 41)


@pytest.mark.parametrize(("action", "after"), [("rollout.moved", 20), (RESTORED, 19), (RESTORED, None)])
def test_numbers_are_left_out_by_a_restore_that_says_so_and_by_nothing_else(action: str, after: int | None) -> None:
    log = make_log(20)
    log.add(action, {"after": after}, n=31)
    log.checkpoint()
    assert log.examine().faults == ("entries 21 to 30 are missing",)


def test_checkpoints_that_go_back_are_a_fault() -> None:
    log = make_log(40)
    log.checkpoints.reverse()
    assert log.examine().faults == ("the checkpoint of entry 16 stands after the one of entry 32",)


def test_a_number_that_is_given_out_twice_is_a_fault() -> None:
    log = make_log(1)
    log.seal(3)
    log.add(SEALED, batch_detail([(3, "hash 3")]))
    assert log.examine().faults == ("entry 3 gives out the sequence number 3 again",)


def test_what_was_sealed_before_there_was_a_log_is_no_stray() -> None:
    log = Log([], [], {1: "old", 2: "old"})
    log.add(STARTED, {"seq": 2})
    log.seal(2)
    assert log.examine(to_the_end=True).faults == ()
    log.deliveries[9] = "stray"
    assert log.examine(to_the_end=True).faults == ("1 deliveries from sequence number 9 on are in no batch",)
    assert log.examine().faults == ()


@pytest.mark.parametrize("detail", [{}, {"first": "1", "last": 2}, {"first": 5, "last": 1}, {"first": 1, "last": None}])
def test_a_batch_that_names_no_numbers_is_a_fault(detail: dict[str, object]) -> None:
    log = make_log(1)
    log.add(SEALED, detail)
    assert log.examine().faults == ("entry 2 tells of no batch",)


@pytest.mark.parametrize("detail", ["", "[]", "{", "[" * 100_000, '{"after": 0}'])
def test_hostile_details_are_faults_and_nothing_worse(detail: str) -> None:
    log = make_log(1)
    words = (7, 1.0, "ann", RESTORED, "x", detail)
    log.entries.append(Entry(*words, log.entries[0].hash, digest(log.entries[0].hash, *words)))
    assert log.examine().faults == ("entries 2 to 6 are missing",)


def test_the_hash_is_over_these_bytes() -> None:
    """Pinned, so that a log of today can be checked by any program of later days."""
    entry = follow(
        START, 1.23456, "ann", "rollout.moved", "spring", {"b": 1, "a": "\N{LATIN SMALL LETTER E WITH ACUTE}"}
    )
    assert entry.detail == '{"a":"é","b":1}'
    assert entry.at == 1.235
    assert entry.hash == digest(START.hash, 1, 1.235, "ann", "rollout.moved", "spring", '{"a":"é","b":1}')
    assert entry.hash == "f50d0e893a62778168a5d2b57c12304d4af81042911c4222cba69d0fa2b60451"
    assert names_hash(["b", "a"]) == "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a reason", "a reason"),
        ("the token otad_abcdefghijklmnop is out", "the token (removed) is out"),
        ("Authorization: Bearer abc.def", "Authorization: (removed)"),
        ("see https://s3.example.net/fw?X-Amz-Signature=abc now", "see (removed) now"),
        ("X-Amz-Credential=AKIA/2026 x", "(removed) x"),
        ("https://s3.example.net/fw", "https://s3.example.net/fw"),
        ("one\r\ntwo\x1b[31m\ud800", "one\ufffd\ufffdtwo\ufffd[31m\ufffd"),
        ("x" * 501, "x" * MAX_TEXT),
    ],
)
def test_texts_are_cleaned(text: str, kept: str) -> None:
    assert clean(text) == kept
    entry = follow(START, 0.0, text, text, text, {"t": text, "l": [text], "d": {text: 1}})
    assert (entry.actor, entry.action, entry.object) == (kept, kept, kept)
    assert json.loads(entry.detail) == {"t": kept, "l": [kept], "d": {kept: 1}}


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.text(), st.text(), st.dictionaries(st.text(), _VALUE, max_size=4), st.floats(0, 1e11))
def test_any_entry_can_be_examined(actor: str, action: str, object_: str, detail: dict[str, object], at: float) -> None:
    entry = follow(START, at, actor, f"x{action}", object_, detail)
    walk = Examination([sign(entry)], lambda first, last: [])
    walk.look(entry)
    assert walk.finish().faults == ()
    assert entry.detail.encode().decode() == entry.detail
