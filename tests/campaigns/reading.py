"""What the file holds after each commit, and what the commit changed.

Rules:
- Everything is read every time; only rows that differ from those of the commit before are made into objects again.
- Who counts as what is written down here once more; the functions that the engine asks are not asked.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from sqlalchemy import Row

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.schema import rollouts as rollouts_table
from orchestrator.core.model import MET, RELAPSED, RETRIED, Rollout, TallyKey, Update, UpdateState

S = UpdateState
FAILED = frozenset({S.EXPIRED, S.LOST, S.FAILED, S.ROLLED_BACK})
FLYING = frozenset({S.OFFERED, S.ACCEPTED, S.DOWNLOADED, S.RECALLING, S.TOO_LATE, S.INSTALLED, S.RUNNING})
EXPOSED = FAILED | FLYING | {S.CONFIRMED}
INSTALL = "install"

_STORED = tuple(column.name for column in rollouts_table.c)
_COLUMNS = (*_STORED, "moves")
_UPDATES = f"SELECT {', '.join(rows.UPDATE_COLUMNS)} FROM updates"
_MOVES = "(SELECT moves FROM releases WHERE releases.name = rollouts.release)"
_ROLLOUTS = f"SELECT {', '.join(_STORED)}, {_MOVES} FROM rollouts"
_TALLIES = """SELECT rollout_id, epoch, stage, stratum, state, SUM(n) FROM (
  SELECT rollout_id, epoch, stage, stratum, state, count AS n FROM tallies UNION ALL
  SELECT rollout_id, epoch, stage, stratum, state, change AS n FROM tally_changes) GROUP BY 1, 2, 3, 4, 5"""
_PARCELS = "SELECT id, kind, state, update_id, rollout_id, rollout_version, seq, token_hash, expires_at FROM deliveries"
_OUTAGE = "SELECT COUNT(*) FROM outages WHERE ended_at IS NULL"


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
    expires_at: float | None


@dataclass
class State:
    """What the file holds after one commit."""

    rollouts: dict[int, Rollout] = field(default_factory=dict)
    updates: dict[int, Update] = field(default_factory=dict)
    parcels: dict[int, Parcel] = field(default_factory=dict)
    tallies: dict[int, dict[TallyKey, int]] = field(default_factory=dict)
    reports: int = 0
    outage: bool = False


@dataclass
class Commit:
    """What one commit did.

    Attributes:
        before: what the file held.
        after: what it holds.
        rollouts: those that are new or another, as they were, None for new ones.
        updates: the same for updates.
        parcels: the same for deliveries.
    """

    before: State
    after: State
    rollouts: dict[int, Rollout | None]
    updates: dict[int, Update | None]
    parcels: dict[int, Parcel | None]


class Reader:
    """Reads a file.

    Args:
        path: the database.
    """

    def __init__(self, path: Path) -> None:
        self.file = sqlite3.connect(path, isolation_level=None)
        self.state = State()
        self._version = -1
        self._raw: dict[str, dict[int, tuple[Any, ...]]] = {"rollouts": {}, "updates": {}, "parcels": {}}

    def close(self) -> None:
        self.file.close()

    def look(self) -> Commit | None:
        """Return what was committed since the last look, None for nothing."""
        version = self.file.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return None
        self._version = version
        before, execute = self.state, self.file.execute
        after = State(dict(before.rollouts), dict(before.updates), dict(before.parcels))
        commit = Commit(before, after, {}, {}, {})
        for row in self._fresh("rollouts", _ROLLOUTS):
            commit.rollouts[row[0]] = after.rollouts.get(row[0])
            after.rollouts[row[0]] = _rollout(row)
        for row in self._fresh("updates", _UPDATES):
            commit.updates[row[0]] = after.updates.get(row[0])
            after.updates[row[0]] = rows.update(row)
        for row in self._fresh("parcels", _PARCELS):
            commit.parcels[row[0]] = after.parcels.get(row[0])
            after.parcels[row[0]] = Parcel(*row)
        for rollout_id, epoch, stage, stratum, state, count in execute(_TALLIES):
            if count:
                after.tallies.setdefault(rollout_id, {})[TallyKey(epoch, stage, stratum, state)] = count
        after.reports = execute("SELECT COUNT(*) FROM reports").fetchone()[0]
        after.outage = execute(_OUTAGE).fetchone()[0] > 0
        self.state = after
        return commit

    def column(self, query: str, *values: object) -> list[Any]:
        """Return the first column of what a query finds."""
        return [row[0] for row in self.file.execute(query, values)]

    def _fresh(self, name: str, query: str) -> Sequence[tuple[Any, ...]]:
        """Return the rows that are new or another; none may be gone."""
        known, there = self._raw[name], self.file.execute(query).fetchall()
        fresh = [row for row in there if known.get(row[0]) != row]
        known.update((row[0], row) for row in fresh)
        if len(known) != len(there):
            raise BrokenError(f"{name} vanished")
        return fresh


class BrokenError(AssertionError):
    """A promise was broken."""


def places(update: Update) -> Sequence[TallyKey]:
    """Return where an update counts, once each: where it stands, and its failures, once in each epoch."""
    stage, stratum, failed_at = update.stage, update.stratum, update.failed_epoch
    if update.relapsed_stage is not None:
        relapse = TallyKey(update.relapsed_epoch, update.relapsed_stage, stratum, RELAPSED)
        return TallyKey(update.epoch, stage, stratum, S.CONFIRMED), relapse
    found = [TallyKey(update.epoch, stage, stratum, update.state)]
    if failed_at is None:
        return found
    again = update.epoch == failed_at
    if not (again and update.state in FAILED):
        found.append(TallyKey(failed_at, stage, stratum, RETRIED))
        if not (again and update.state in EXPOSED):
            found.append(TallyKey(failed_at, stage, stratum, MET))
    return found


def failures(tally: dict[TallyKey, int], epoch: int) -> Counter[str]:
    """Return the failures of an epoch by stratum."""
    found: Counter[str] = Counter()
    for key, count in tally.items():
        if key.epoch == epoch and key.state in (*FAILED, RELAPSED, RETRIED):
            found[key.stratum] += count
    return found


def exposed(tally: dict[TallyKey, int], epoch: int) -> Counter[str]:
    """Return the devices of an epoch that were offered the release and did not leave it, by stratum."""
    found: Counter[str] = Counter()
    for key, count in tally.items():
        if key.epoch == epoch and (key.state in EXPOSED or key.state == MET):
            found[key.stratum] += count
    return found


def _rollout(row: tuple[Any, ...]) -> Rollout:
    return rows.rollout(cast(Row[Any], SimpleNamespace(**dict(zip(_COLUMNS, row, strict=True)))))
