"""Rollouts, their tallies and their record. Implements `ports.Rollouts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, bindparam, delete, func, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import (
    counters,
    plan_versions,
    releases,
    rollout_events,
    rollouts,
    tallies,
    tally_changes,
)
from orchestrator.core.model import Phase, Rollout, Tally, TallyKey, UpdateState
from orchestrator.core.update import IN_FLIGHT
from orchestrator.errors import ConflictError
from orchestrator.ports import Event, PlanVersion

_KEY = ("epoch", "stage", "stratum", "state")
_OFFERS = "offers/"
"""A counter of this name and a minute holds the offers of that minute."""
_IN_FLIGHT = sorted(IN_FLIGHT)
_MOVES = select(releases.c.moves).where(releases.c.name == rollouts.c.release).scalar_subquery().label("moves")
_ROLLOUTS: Select[Any] = select(rollouts, _MOVES)
# Made once: every batch asks it, and what is known of its text lives as long as it.
_LOCKED = _ROLLOUTS.where(rollouts.c.id == bindparam("number")).with_for_update(of=rollouts)
_IS_OFFERS = counters.c.name.startswith(_OFFERS)


class SqlRollouts:
    """Rollouts in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_rollout(self, rollout: Rollout, secret: bytes) -> Rollout:
        """See `ports.Rollouts.add_rollout`."""
        values = rows.rollout_values(rollout) | {"secret": secret}
        try:
            number = self._connection.execute(
                plain_insert(rollouts).values(values).returning(rollouts.c.id)
            ).scalar_one()
        except IntegrityError:
            raise ConflictError(f"a rollout named {rollout.plan.name!r} exists; choose another name") from None
        return rows.rollout(self._connection.execute(_ROLLOUTS.where(rollouts.c.id == number)).one())

    def rollout(self, rollout_id: int) -> Rollout | None:
        """See `ports.Rollouts.rollout`."""
        row = self._connection.execute(_LOCKED, {"number": rollout_id}).one_or_none()
        return None if row is None else rows.rollout(row)

    def rollout_named(self, name: str) -> Rollout | None:
        """See `ports.Rollouts.rollout_named`."""
        row = self._connection.execute(_ROLLOUTS.where(rollouts.c.name == name)).one_or_none()
        return None if row is None else rows.rollout(row)

    def rollouts(
        self, phases: Iterable[Phase] = (), *, releases: Iterable[str] = (), select: str = ""
    ) -> list[Rollout]:
        """See `ports.Rollouts.rollouts`."""
        query = _ROLLOUTS.order_by(rollouts.c.id.desc())
        wanted, named = [phase.value for phase in phases], list(releases)
        if wanted:
            query = query.where(rollouts.c.phase.in_(wanted))
        if named:
            query = query.where(rollouts.c.release.in_(named))
        if select:  # found in the text first, because to decode every plan takes long
            query = query.where(rollouts.c.plan.contains(rows.to_json(select), autoescape=True))
        found = [rows.rollout(row) for row in self._connection.execute(query)]
        return [item for item in found if not select or item.plan.select == select]

    def count_rollouts(self, releases: Collection[str], phases: Iterable[Phase] = ()) -> int:
        """See `ports.Rollouts.count_rollouts`."""
        query = select(func.count()).where(rollouts.c.release.in_(releases))
        wanted = [phase.value for phase in phases]
        if wanted:
            query = query.where(rollouts.c.phase.in_(wanted))
        return int(self._connection.execute(query).scalar_one())

    def took(self, releases: Collection[str], phases: Iterable[Phase], states: Iterable[UpdateState]) -> int:
        """See `ports.Rollouts.took`."""
        within = select(rollouts.c.id).where(
            rollouts.c.release.in_(releases), rollouts.c.phase.in_([phase.value for phase in phases])
        )
        wanted, total = [state.value for state in states], 0
        for table, value in ((tallies, tallies.c.count), (tally_changes, tally_changes.c.change)):
            query = select(func.coalesce(func.sum(value), 0)).where(table.c.state.in_(wanted))
            total += int(self._connection.execute(query.where(table.c.rollout_id.in_(within))).scalar_one())
        return total

    def save_rollout(self, rollout: Rollout, event: Event | None) -> None:
        """See `ports.Rollouts.save_rollout`."""
        values = rows.rollout_values(rollout)
        self._connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(values))
        if event is not None:
            entry = {name: getattr(event, name) for name in Event.__dataclass_fields__}
            self._connection.execute(plain_insert(rollout_events), entry | {"rollout_id": rollout.id})

    def secret(self, rollout_id: int) -> bytes:
        """See `ports.Rollouts.secret`."""
        return bytes(
            self._connection.execute(select(rollouts.c.secret).where(rollouts.c.id == rollout_id)).scalar_one()
        )

    def events(self, rollout_id: int) -> list[Event]:
        """See `ports.Rollouts.events`."""
        query = select(rollout_events).where(rollout_events.c.rollout_id == rollout_id).order_by(rollout_events.c.id)
        return [
            Event(row.at, Phase(row.phase), row.code, row.text, row.actor, row.stage)
            for row in self._connection.execute(query)
        ]

    def add_plan_version(self, rollout_id: int, version: PlanVersion) -> None:
        """See `ports.Rollouts.add_plan_version`."""
        self._connection.execute(plain_insert(plan_versions), rows.plan_version_values(rollout_id, version))

    def plan_versions(self, rollout_id: int) -> list[PlanVersion]:
        """See `ports.Rollouts.plan_versions`."""
        query = select(plan_versions).where(plan_versions.c.rollout_id == rollout_id).order_by(plan_versions.c.version)
        return [rows.plan_version(row) for row in self._connection.execute(query)]

    def offers(self) -> dict[int, int]:
        """See `ports.Rollouts.offers`."""
        found = self._connection.execute(select(counters).where(_IS_OFFERS))
        return {int(row.name.removeprefix(_OFFERS)): int(row.value) for row in found}

    def save_offers(self, offers: Mapping[int, int]) -> None:
        """See `ports.Rollouts.save_offers`."""
        self._connection.execute(delete(counters).where(_IS_OFFERS))
        values = [{"name": f"{_OFFERS}{minute}", "value": count} for minute, count in offers.items()]
        if values:
            self._connection.execute(plain_insert(counters), values)

    def in_flight(self) -> dict[int, int]:
        """See `ports.Rollouts.in_flight`."""
        sums: Counter[int] = Counter()
        for table, value in ((tallies, tallies.c.count), (tally_changes, tally_changes.c.change)):
            query = select(table.c.rollout_id, func.sum(value)).where(table.c.state.in_(_IN_FLIGHT))
            for rollout_id, count in self._connection.execute(query.group_by(table.c.rollout_id)):
                sums[rollout_id] += int(count)
        return {rollout_id: count for rollout_id, count in sums.items() if count > 0}

    def change_tallies(self, rollout_id: int, changes: Counter[TallyKey]) -> None:
        """See `ports.Rollouts.change_tallies`."""
        values = [
            {"rollout_id": rollout_id, "change": change} | key._asdict() for key, change in changes.items() if change
        ]
        if values:
            self._connection.execute(plain_insert(tally_changes), values)

    def tally(self, rollout_id: int) -> Tally:
        """See `ports.Rollouts.tally`."""
        sums = Counter(self._folded(rollout_id))
        for key, change in self._sum(tally_changes, tally_changes.c.change, rollout_id).items():
            sums[key] += change
        return {key: count for key, count in sums.items() if count}

    def fold(self, rollout_id: int) -> Tally:
        """See `ports.Rollouts.fold`."""
        waiting = select(tally_changes.c.id).where(tally_changes.c.rollout_id == rollout_id).limit(1)
        if self._connection.execute(waiting).first() is None:
            return self._folded(rollout_id)
        columns = tuple(tally_changes.c[name] for name in _KEY)
        sums = (
            select(tally_changes.c.rollout_id, *columns, func.sum(tally_changes.c.change))
            .where(tally_changes.c.rollout_id == rollout_id)
            .group_by(tally_changes.c.rollout_id, *columns)
        )
        statement = insert(self._connection, tallies).from_select(["rollout_id", *_KEY, "count"], sums)
        statement = statement.on_conflict_do_update(
            index_elements=["rollout_id", *_KEY],
            set_={"count": tallies.c.count + statement.excluded.count},
        )
        self._connection.execute(statement)
        self._connection.execute(delete(tally_changes).where(tally_changes.c.rollout_id == rollout_id))
        return self._folded(rollout_id)

    def _folded(self, rollout_id: int) -> dict[TallyKey, int]:
        found = self._sum(tallies, tallies.c.count, rollout_id)
        return {key: count for key, count in found.items() if count}

    def _sum(self, table: Table, value: Column[int], rollout_id: int) -> dict[TallyKey, int]:
        columns = tuple(table.c[name] for name in _KEY)
        query = select(*columns, func.sum(value)).where(table.c.rollout_id == rollout_id).group_by(*columns)
        return {TallyKey(*row[:4]): int(row[4]) for row in self._connection.execute(query)}
