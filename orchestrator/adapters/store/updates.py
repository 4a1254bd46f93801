"""Updates and the reports about them. Implements `ports.Updates`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter

from sqlalchemy import Connection, and_, exists, func, select, text, tuple_, update
from sqlalchemy import insert as plain_insert

from orchestrator.adapters.store import packed, rows
from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.lease import updates_above
from orchestrator.adapters.store.recent import Recent
from orchestrator.adapters.store.schema import reports, updates
from orchestrator.core.model import Rollout, Update, UpdateState
from orchestrator.core.pace.hold import OF_TIME, Hold
from orchestrator.core.targeting.cohort import Member
from orchestrator.core.update import IN_FLIGHT
from orchestrator.ports import Line
from orchestrator.wire.report import Report

_COLUMNS = tuple(updates.c[name] for name in rows.UPDATE_COLUMNS)
_KEY_SIZE = 4
_REPORT_COLUMNS = ("update_id", "attempt", "boot", "n", "at", "kind", "code", "text", "rel", "boots")
_KEY = [reports.c[name] for name in _REPORT_COLUMNS[:_KEY_SIZE]]
_STORED = tuple_(*_KEY).in_(select(packed.given(_KEY)))
_INSERT_REPORTS = (
    plain_insert(reports)
    .from_select(_REPORT_COLUMNS, select(packed.given([reports.c[name] for name in _REPORT_COLUMNS])))
    .prefix_with("OR IGNORE", dialect="sqlite")
)
_CHANGED = packed.given([updates.c[name] for name in (*rows.UPDATE_CHANGES, "id")])
# A violation ends the whole transaction anyway; saying so spares SQLite a journal for each statement.
_SAVE = (
    update(updates)
    .values({name: _CHANGED.c[name] for name in rows.UPDATE_CHANGES})
    .where(updates.c.id == _CHANGED.c.id)
    .prefix_with("OR ROLLBACK", dialect="sqlite")
)
_FLIGHT = packed.given([updates.c.flight, updates.c.id])
_BOARD = (
    update(updates)
    .values(flight=_FLIGHT.c.flight)
    .where(updates.c.id == _FLIGHT.c.id)
    .prefix_with("OR ROLLBACK", dialect="sqlite")
)
_NAMED = updates.c.id.in_(packed.given_values())
# As the partial indexes say it, else SQLite does not see that they fit.
_FREE = text("updates.state = 'pending' AND updates.held_until_at IS NULL")
_HELD = text("updates.state = 'pending' AND updates.held_until_at IS NOT NULL")
_HOLD = packed.given([updates.c.held_until_at, updates.c.hold, updates.c.id])
_KEEP = (
    update(updates)
    .values(held_until_at=_HOLD.c.held_until_at, hold=_HOLD.c.hold)
    .where(updates.c.id == _HOLD.c.id)
    .prefix_with("OR ROLLBACK", dialect="sqlite")
)


class SqlUpdates:
    """Updates in SQL."""

    def __init__(self, connection: Connection, recent: Recent | None = None) -> None:
        self._connection = connection
        self._recent = recent or Recent()
        self._touched: dict[int, Update] = {}

    def open_updates(self, rollout: Rollout, members: Sequence[Member], rel: int, now: float) -> list[Update]:
        """See `ports.Updates.open_updates`."""
        if not members:
            return []
        values = [
            {
                "rollout_id": rollout.id,
                "device_id": member.device_id,
                "stage": rollout.stage,
                "stratum": member.stratum or member.model,
                "model": member.model,
                "rel": rel,
                "rank": member.rank,
                "state": UpdateState.PENDING.value,
                "state_at": now,
                "epoch": rollout.epoch,
                "attempt": 1,
                "begun": False,
                "progress": 0,
                "code": "",
                "relapsed_epoch": 0,
            }
            for member in members
        ]
        self._number(values)
        statement = insert(self._connection, updates).on_conflict_do_nothing().returning(*_COLUMNS)
        return [rows.update(row) for row in self._connection.execute(statement, values)]

    def _number(self, values: Sequence[dict[str, object]]) -> None:
        """After a restore, begin above all numbers that devices may know from what was lost."""
        above = updates_above(self._connection)
        if above and (self._connection.scalar(select(func.max(updates.c.id))) or 0) <= above:
            for place, row in enumerate(values, start=1):
                row["id"] = above + place

    def updates(self, update_ids: Iterable[int]) -> dict[int, Update]:
        """See `ports.Updates.updates`."""
        found: dict[int, Update] = {}
        missing = []
        for update_id in update_ids:
            known = self._touched.get(update_id) or self._recent.get(update_id)
            if known is None:
                missing.append(update_id)
            else:
                found[update_id] = known
        if missing:
            rest = packed.fetch(self._connection, _COLUMNS, _NAMED, sorted(missing))
            fetched = {row[0]: rows.update(row) for row in rest}
            self._touched.update(fetched)
            found.update(fetched)
        return found

    def save_updates(self, updates_: Iterable[Update], slots: Iterable[Update] | None = None) -> None:
        """See `ports.Updates.save_updates`."""
        changed = list(updates_)
        if not changed:
            return
        values = sorted((rows.update_values(item) for item in changed), key=itemgetter(-1))
        self._connection.execute(_SAVE, packed.pack(values))
        self._touched.update((item.id, item) for item in changed)
        moved = changed if slots is None else list(slots)
        if moved:
            boarding = [(item.device_id if item.state in IN_FLIGHT else None, item.id) for item in moved]
            self._connection.execute(_BOARD, packed.pack(boarding))

    def pending(self, rollout_id: int, limit: int) -> list[Update]:
        """See `ports.Updates.pending`."""
        other = updates.alias()
        busy = exists().where(other.c.flight == updates.c.device_id)
        query = (
            select(*_COLUMNS)
            .with_hint(updates, "INDEXED BY ix_updates_pending", "sqlite")
            .where(updates.c.rollout_id == rollout_id, _FREE, ~busy)
            .order_by(updates.c.rank)
            .limit(limit)
        )
        return [rows.update(row) for row in self._connection.execute(query)]

    def hold(self, held: Sequence[tuple[Update, Hold]]) -> None:
        """See `ports.Updates.hold`."""
        if held:
            self._connection.execute(_KEEP, packed.pack([(hold.look_at, hold.code, item.id) for item, hold in held]))

    def release_holds(self, rollout_id: int, now: float, limit: int) -> None:
        """See `ports.Updates.release_holds`."""
        due = (
            select(updates.c.id)
            .where(updates.c.rollout_id == rollout_id, _HELD, updates.c.held_until_at <= now)
            .order_by(updates.c.held_until_at)
            .limit(limit)
        )
        self._connection.execute(update(updates).values(held_until_at=None).where(updates.c.id.in_(due)))

    def free_holds(self, device_ids: Sequence[str], *, timed: bool = False) -> set[int]:
        """See `ports.Updates.free_holds`."""
        found = select(updates.c.id, updates.c.rollout_id).where(updates.c.device_id.in_(list(device_ids)), _HELD)
        if not timed:
            found = found.where(updates.c.hold.not_in(sorted(OF_TIME)))
        held = [tuple(row) for row in self._connection.execute(found)]
        if held:
            named = updates.c.id.in_([update_id for update_id, _ in held])
            self._connection.execute(update(updates).values(held_until_at=None).where(named))
        return {rollout_id for _, rollout_id in held}

    def next_look(self, rollout_id: int) -> tuple[float, str] | None:
        """See `ports.Updates.next_look`."""
        mine = updates.c.rollout_id == rollout_id
        if self._connection.scalar(select(updates.c.id).where(mine, _FREE).limit(1)) is not None:
            return None
        columns = (updates.c.held_until_at, updates.c.hold)
        query = select(*columns).where(mine, _HELD).order_by(updates.c.held_until_at).limit(1)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (row.held_until_at, row.hold)

    def updates_in(self, rollout_id: int, states: Iterable[UpdateState]) -> list[Update]:
        """See `ports.Updates.updates_in`."""
        wanted = frozenset(states)
        query = (
            select(*_COLUMNS)
            .where(updates.c.rollout_id == rollout_id, updates.c.state.in_([state.value for state in wanted]))
            .order_by(updates.c.rank)
        )
        if wanted <= IN_FLIGHT:  # few among many: the cohort may be a million
            query = query.with_hint(updates, "INDEXED BY ix_updates_flight", "sqlite")
            query = query.where(text("updates.flight IS NOT NULL"))
        return [rows.update(row) for row in self._connection.execute(query)]

    def codes(self, rollout_id: int, states: Iterable[UpdateState]) -> Counter[str]:
        """See `ports.Updates.codes`."""
        query = (
            select(updates.c.code, func.count().label("devices"))
            .where(updates.c.rollout_id == rollout_id, updates.c.state.in_([state.value for state in states]))
            .group_by(updates.c.code)
        )
        return Counter({row.code: row.devices for row in self._connection.execute(query)})

    def updates_of(self, device_ids: Iterable[str], states: Iterable[UpdateState] = ()) -> list[Update]:
        """See `ports.Updates.updates_of`."""
        query = select(*_COLUMNS).where(updates.c.device_id.in_(list(device_ids))).order_by(updates.c.id)
        wanted = [state.value for state in states]
        if wanted:
            query = query.where(updates.c.state.in_(wanted))
        return [rows.update(row) for row in self._connection.execute(query)]

    def overdue(self, now: float, limit: int) -> list[Update]:
        """See `ports.Updates.overdue`."""
        found: list[Update] = []
        for flying in (updates.c.flight.is_not(None), updates.c.flight.is_(None)):  # an index each
            query = select(*_COLUMNS).where(flying, updates.c.deadline_at <= now)
            limited = query.order_by(updates.c.deadline_at).limit(limit - len(found))
            found += [rows.update(row) for row in self._connection.execute(limited)]
        return found

    def taken(self, rollout_id: int, after: str, last: str) -> set[str]:
        """See `ports.Updates.taken`."""
        between = updates.c.device_id.between(after, last)
        query = select(updates.c.device_id).where(between, updates.c.rollout_id == rollout_id)
        return set(self._connection.scalars(query))

    def add_reports(self, reports_: Sequence[Report], now: float) -> list[bool]:
        """See `ports.Updates.add_reports`."""
        at = self._recent.batch_at(now)
        values = [
            (
                *item.named,
                item.boot,
                item.n,
                at,
                item.kind.value,
                item.code,
                item.said.replace("\0", ""),
                item.rel,
                item.boots,
            )
            for item in reports_
        ]
        sorted_ = sorted(values, key=itemgetter(*range(_KEY_SIZE)))  # neighbours share pages
        if not values or self._connection.execute(_INSERT_REPORTS, packed.pack(sorted_)).rowcount == len(values):
            return [True] * len(values)
        # Few batches hold a repetition. In this one, what was there before has another time: no two batches share one.
        first = {row[:_KEY_SIZE]: place for place, row in reversed(list(enumerate(values)))}
        for known in packed.fetch(self._connection, _KEY, and_(_STORED, reports.c.at != at), list(first)):
            first.pop(tuple(known), None)
        places = set(first.values())
        return [place in places for place in range(len(values))]

    def lines(self, update_id: int) -> list[Line]:
        """See `ports.Updates.lines`."""
        query = select(reports).where(reports.c.update_id == update_id).order_by(reports.c.at, reports.c.n)
        return [
            Line(row.at, row.attempt, row.boot, row.n, row.kind, row.code, row.text, row.rel, row.boots)
            for row in self._connection.execute(query)
        ]
