"""What must hold after every single commit, judged from the file alone.

Rules:
- Each commit is compared with the one before; what it may not do is a `BrokenError`.
- Limits are counted here once more from the plan; the functions that the engine asks are not asked.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from sqlalchemy import Row

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.schema import rollouts as rollouts_table
from orchestrator.core.model import RELAPSED, RETRIED, Phase, Rollout, SizeKind, TallyKey, Update, UpdateState
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.trust.audit import Entry, Examination, Head
from orchestrator.core.update import FAILURES, IN_FLIGHT, contributions
from tests.campaigns.devices import claims_of

HOUR_S = 3600.0
FIRST_SLOTS = 10
LARGEST_EXTENSION = 3
STOPPED = frozenset(Phase) - {Phase.RUNNING}
OVER = frozenset({Phase.DONE, Phase.ABORTED})
QUEUED = ("planned", "sealed")
_BEFORE_REBOOT = (UpdateState.OFFERED, UpdateState.ACCEPTED, UpdateState.DOWNLOADED)
_BAD = frozenset({*FAILURES, RELAPSED, RETRIED})
_UPDATES = f"SELECT {', '.join(rows.UPDATE_COLUMNS)} FROM updates"
_ROLLOUTS = f"SELECT {', '.join(column.name for column in rollouts_table.c)} FROM rollouts"
_TALLIES = """SELECT rollout_id, epoch, stage, stratum, state, SUM(n) FROM (
  SELECT rollout_id, epoch, stage, stratum, state, count AS n FROM tallies UNION ALL
  SELECT rollout_id, epoch, stage, stratum, state, change AS n FROM tally_changes) GROUP BY 1, 2, 3, 4, 5"""
_PARCELS = "SELECT id, kind, state, update_id, rollout_id, rollout_version, seq, token_hash FROM deliveries"


class BrokenError(AssertionError):
    """A promise was broken."""


class Parcel(NamedTuple):
    """One delivery in the file."""

    id: int
    kind: str
    state: str
    update_id: int
    rollout_id: int
    rollout_version: int
    seq: int | None
    token_hash: str


@dataclass
class State:
    """What the file holds after one commit."""

    rollouts: dict[int, Rollout] = field(default_factory=dict)
    updates: dict[int, Update] = field(default_factory=dict)
    parcels: dict[int, Parcel] = field(default_factory=dict)
    tallies: dict[int, Counter[TallyKey]] = field(default_factory=dict)
    reports: int = 0


class Promises:
    """Watches a file, and what is published.

    Args:
        path: the database.
        ceiling: over all rollouts.
        now: the clock.
        batch: triggers that may be on the wire when a rollout is halted.
    """

    def __init__(self, path: Path, ceiling: Ceiling, now: Callable[[], float], batch: int) -> None:
        self.state = State()
        self._file = sqlite3.connect(path, isolation_level=None)
        self._ceiling = ceiling
        self._now = now
        self._batch = batch
        self._seen = -1
        self._known: dict[tuple[object, ...], Rollout] = {}
        self._offers: list[tuple[float, int]] = []
        self._failed: set[int] = set()
        self._tokens: dict[int, bytes] = {}
        self._sealed = 0
        self._late: Counter[tuple[int, int]] = Counter()

    def close(self) -> None:
        self._file.close()

    def look(self) -> None:
        """Judge what the last commit did."""
        version = self._file.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen:
            return
        self._seen = version
        before, after = self.state, self._read()
        self.state = after
        self._nothing_vanished(before, after)
        self._tallies_are_recounts(after)
        self._one_update_in_flight_per_device(after)
        self._phases_follow(before, after)
        self._stages_hold_no_more_than_their_targets(after)
        self._nothing_waits_for_what_is_stopped(before, after)
        self._claims_are_current(before, after)
        self._numbers_rise(before, after)
        self._offers_keep_within_limits(before, after)
        self._failures_stay(before, after)

    def published(self, payload: bytes, *, claimed_before: bool) -> None:
        """Judge what reached the broker.

        Args:
            payload: the bundle.
            claimed_before: whether somebody stopped a rollout since the engine began to publish: what it had claimed
                by then may still follow.
        """
        claims = claims_of(payload)
        seq = claims["seq"]
        self._require(self._tokens.setdefault(seq, payload) == payload, f"two tokens have the number {seq}")
        rollout = self.state.rollouts[int(claims["cid"])]
        if claims["act"] == "install" and rollout.phase in STOPPED:
            key = (rollout.id, rollout.version)
            self._late[key] += 1
            self._require(claimed_before, f"published after {rollout.phase}")
            self._require(self._late[key] <= self._batch, f"published more than a batch after {rollout.phase}")

    def answered(self, payload: bytes) -> None:
        """Judge what a poll got."""
        claims = claims_of(payload)
        rollout = self.state.rollouts[int(claims["cid"])]
        update = self.state.updates[int(claims["att"].split(".")[0])]
        recalled = rollout.phase in (Phase.HALTED, Phase.ABORTED) and update.state in _BEFORE_REBOOT
        if claims["act"] == "install" and recalled and not update.begun:
            self._require(False, f"a poll got a trigger of a rollout that is {rollout.phase}")

    def clock_was_set(self) -> None:
        """A clock that is set back forgets no offer: those of the future count as of now."""
        now = self._now()
        self._offers = [(min(at, now), count) for at, count in self._offers]

    def audit_holds(self) -> None:
        """Examine the audit log against the deliveries."""
        examination = Examination((), self._sealed_between)
        for row in self._file.execute("SELECT n, at, actor, action, object, detail, prev, hash FROM audit ORDER BY n"):
            examination.look(Entry(*row))
        head = self._file.execute("SELECT n, hash FROM audit_head").fetchone()
        found = examination.finish(Head(*head) if head else None, to_the_end=True)
        self._require(not found.faults, f"the audit log is broken: {found.faults}")

    def has_lines(self, named: set[tuple[int, int, str, int]]) -> None:
        """All these accepted reports are on record: update, attempt, boot and number of each."""
        there = set(self._file.execute("SELECT update_id, attempt, boot, n FROM reports"))
        self._require(named <= there, f"accepted reports have no line: {sorted(named - there)[:3]}")

    def next_deadline(self) -> float | None:
        """Return when silence will be judged next."""
        times = [item.deadline_at for item in self.state.updates.values() if item.deadline_at is not None]
        return min(times, default=None)

    def _read(self) -> State:
        execute = self._file.execute
        updates = {row[0]: rows.update(row) for row in execute(_UPDATES)}
        tallies: dict[int, Counter[TallyKey]] = {}
        for rollout_id, epoch, stage, stratum, state, count in execute(_TALLIES):
            if count:
                tallies.setdefault(rollout_id, Counter())[TallyKey(epoch, stage, stratum, state)] = count
        parcels = {row[0]: Parcel(*row) for row in execute(_PARCELS)}
        rollouts = {row[0]: self._rollout(row) for row in execute(_ROLLOUTS)}
        return State(rollouts, updates, parcels, tallies, execute("SELECT COUNT(*) FROM reports").fetchone()[0])

    def _rollout(self, row: tuple[Any, ...]) -> Rollout:
        known = self._known.get(row)
        if known is None:
            named = dict(zip((column.name for column in rollouts_table.c), row, strict=True))
            known = self._known[row] = rows.rollout(cast(Row[Any], SimpleNamespace(**named)))
        return known

    def _nothing_vanished(self, before: State, after: State) -> None:
        for name in ("rollouts", "updates", "parcels"):
            there: Mapping[int, object] = getattr(before, name)
            self._require(there.keys() <= getattr(after, name).keys(), f"{name} vanished")
        self._require(before.reports <= after.reports, "reports vanished")

    def _tallies_are_recounts(self, after: State) -> None:
        recount: dict[int, Counter[TallyKey]] = {}
        for item in after.updates.values():
            recount.setdefault(item.rollout_id, Counter()).update(contributions(item))
        self._require(after.tallies == recount, f"tallies are no recount: {after.tallies} but {recount}")

    def _one_update_in_flight_per_device(self, after: State) -> None:
        flying = Counter(item.device_id for item in after.updates.values() if item.state in IN_FLIGHT)
        self._require(not flying or max(flying.values()) == 1, f"two updates of one device are in flight: {flying}")
        pairs = Counter((item.device_id, item.rollout_id) for item in after.updates.values())
        self._require(not pairs or max(pairs.values()) == 1, f"two updates of one device in one rollout: {pairs}")

    def _phases_follow(self, before: State, after: State) -> None:
        for rollout_id, old in before.rollouts.items():
            new = after.rollouts[rollout_id]
            self._require(old.phase not in OVER or new.phase is old.phase, f"{old.phase} became {new.phase}")
            self._require(new.phase is old.phase or new.version > old.version, "a phase changed under one version")
            self._require(new.epoch >= old.epoch and new.stage >= old.stage, "a rollout went back")

    def _stages_hold_no_more_than_their_targets(self, after: State) -> None:
        opened = Counter((item.rollout_id, item.stage) for item in after.updates.values())
        for (rollout_id, at), count in opened.items():
            rollout = after.rollouts[rollout_id]
            stage = rollout.stages[at]
            self._require(count <= stage.target, f"stage {at} took {count} devices of {stage.target}")
            if rollout.plan.stages[at].kind is not SizeKind.REST:
                self._require(stage.target <= LARGEST_EXTENSION * stage.base, f"stage {at} was extended too far")

    def _nothing_waits_for_what_is_stopped(self, before: State, after: State) -> None:
        stopped = {item.id for item in after.rollouts.values() if item.phase in STOPPED}
        for parcel in after.parcels.values():
            waits = parcel.kind == "install" and parcel.state in QUEUED and parcel.rollout_id in stopped
            self._require(not waits, f"trigger {parcel.id} is queued for a rollout that does not run")
        for rollout_id in stopped & before.rollouts.keys():
            new, old = after.rollouts[rollout_id], before.rollouts[rollout_id]
            if new.phase is old.phase or new.phase not in (Phase.HALTED, Phase.ABORTED):
                continue
            left = [i for i in after.updates.values() if i.rollout_id == rollout_id and i.state in _BEFORE_REBOOT]
            self._require(not left, f"{new.phase} recalls not everybody: {left[:2]}")

    def _claims_are_current(self, before: State, after: State) -> None:
        for parcel in after.parcels.values():
            old = before.parcels.get(parcel.id)
            if old is None or parcel.state == old.state or parcel.state not in ("claimed", "sent"):
                continue
            if old.state == "claimed":
                continue
            rollout = after.rollouts[parcel.rollout_id]
            current = rollout.phase is Phase.RUNNING and rollout.version == parcel.rollout_version
            self._require(old.state == "sealed", f"a delivery that was {old.state} became {parcel.state}")
            self._require(parcel.kind == "cancel" or current, f"a trigger of {rollout.phase} was {parcel.state}")

    def _numbers_rise(self, before: State, after: State) -> None:
        sealed = []
        for parcel in after.parcels.values():
            old = before.parcels.get(parcel.id)
            if old is not None and old.seq is not None:
                same = (parcel.seq, parcel.token_hash) == (old.seq, old.token_hash)
                self._require(same, f"delivery {parcel.id} has another token")
            elif parcel.seq is not None:
                sealed.append(parcel.seq)
        if sealed:
            self._require(min(sealed) > self._sealed, f"number {min(sealed)} was given out after {self._sealed}")
            self._require(len(set(sealed)) == len(sealed), "two deliveries have one number")
            self._sealed = max(sealed)

    def _offers_keep_within_limits(self, before: State, after: State) -> None:
        fresh = [parcel for parcel_id, parcel in after.parcels.items() if parcel_id not in before.parcels]
        offered: Counter[int] = Counter()
        for parcel in fresh:
            old, new = before.updates.get(parcel.update_id), after.updates[parcel.update_id]
            was = None if old is None else old.state
            if parcel.kind == "install" and was in (None, UpdateState.PENDING) and new.state is UpdateState.OFFERED:
                offered[parcel.rollout_id] += 1
        for rollout_id in offered:
            rollout, tally = after.rollouts[rollout_id], after.tallies[rollout_id]
            self._require(rollout.phase is Phase.RUNNING, f"offered while {rollout.phase}")
            flying = sum(count for key, count in tally.items() if key.state in IN_FLIGHT)
            confirmed = sum(
                count
                for key, count in tally.items()
                if key.stage == rollout.stage and key.state == UpdateState.CONFIRMED
            )
            slots = min(rollout.plan.in_flight, max(FIRST_SLOTS, confirmed))
            self._require(flying <= slots, f"{flying} in flight in {slots} slots")
        if offered:
            now = self._now()
            self._offers.append((now, offered.total()))
            self._offers = [item for item in self._offers if item[0] > now - HOUR_S]
            spent, limit = sum(count for _, count in self._offers), self._ceiling.floor
            self._require(spent <= limit, f"{spent} devices were offered a release within an hour; {limit} may be")

    def _failures_stay(self, before: State, after: State) -> None:
        for update_id, new in after.updates.items():
            bad = {key.epoch for key in contributions(new) if key.state in _BAD}
            self._require(bool(bad) or update_id not in self._failed, f"the failure of {new} vanished")
            if bad:
                self._failed.add(update_id)
            old = before.updates.get(update_id)
            if old is None or old == new:
                continue
            epoch = after.rollouts[new.rollout_id].epoch
            had = any(key.state in _BAD and key.epoch == epoch for key in contributions(old))
            same = before.rollouts[new.rollout_id].epoch == epoch
            self._require(epoch in bad or not (had and same), f"a failure left the evidence: {old} became {new}")

    def _sealed_between(self, first: int, last: int) -> Sequence[tuple[int, str]]:
        query = "SELECT seq, token_hash FROM deliveries WHERE seq BETWEEN ? AND ? ORDER BY seq"
        return self._file.execute(query, (first, last)).fetchall()

    def _require(self, holds: bool, text: str) -> None:
        if not holds:
            raise BrokenError(text)
