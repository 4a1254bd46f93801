"""Times that move with the clock. Implements `ports.Times`.

Rules:
- An update that was offered keeps the time of it: its triggers are told from earlier ones by having been planned since.
- When devices were registered, and until when facts held, move together: cohorts go by their order.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, and_, case, delete, func, not_, or_, select, update

from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.recent import Recent
from orchestrator.adapters.store.schema import devices, jumps, outages, past_facts, updates
from orchestrator.core.model import UpdateState
from orchestrator.ports.times import Jump, Part, Piece

_OF_DEVICES = (devices.c.registered_at, devices.c.facts_at, devices.c.gone_at)
_WAITS = or_(updates.c.deadline_at.is_not(None), updates.c.state == UpdateState.PENDING.value)


class SqlTimes:
    """Moves in SQL."""

    _connection: Connection
    _recent: Recent

    def move_updates(self, jump: Jump, now: float, after: int, limit: int) -> int | None:
        """See `ports.Times.move_updates`."""
        last = self._end_of_piece(updates.c.id, after, limit)
        if last is None:
            return None
        piece = and_(updates.c.id > after, updates.c.id <= last)
        offered = updates.c.state == UpdateState.OFFERED.value
        moved = (
            update(updates)
            .where(piece, _WAITS, _is_older(updates.c.state_at, jump, now))
            .values(
                deadline_at=updates.c.deadline_at + jump.by_s,
                state_at=case((offered, updates.c.state_at), else_=updates.c.state_at + jump.by_s),
            )
        )
        self._recent.forget(self._connection.scalars(moved.returning(updates.c.id)))
        if jump.by_s < 0:
            held = updates.c.held_until_at.is_not(None)
            self._connection.execute(update(updates).where(piece, held).values(held_until_at=None))
        return int(last)

    def move_devices(self, jump: Jump, now: float, after: str, limit: int) -> str | None:
        """See `ports.Times.move_devices`."""
        last = self._end_of_piece(devices.c.id, after, limit)
        if last is None:
            return None
        older = {column: _was_before(column, jump, now) for column in _OF_DEVICES}
        moved = {column.name: case((was, column + jump.by_s), else_=column) for column, was in older.items()}
        piece = and_(devices.c.id > after, devices.c.id <= last)
        self._connection.execute(update(devices).where(piece, or_(*older.values())).values(moved))
        self._move_past_facts(jump, now, after, last)
        return str(last)

    def move_outage(self, jump: Jump, now: float) -> None:
        """See `ports.Times.move_outage`."""
        lasts = and_(outages.c.ended_at.is_(None), _was_before(outages.c.began_at, jump, now))
        self._connection.execute(update(outages).where(lasts).values(began_at=outages.c.began_at + jump.by_s))

    def keep_jump(self, jump: Jump, following: Piece | None) -> None:
        """See `ports.Times.keep_jump`."""
        if following is None:
            self._connection.execute(delete(jumps))
            return
        values = {"at": jump.at, "by_s": jump.by_s, "since_s": jump.since_s, "part": following.part.value}
        values["after"] = following.after
        statement = insert(self._connection, jumps).values(id=1, **values)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    def unfinished_jump(self) -> tuple[Jump, Piece] | None:
        """See `ports.Times.unfinished_jump`."""
        row = self._connection.execute(select(jumps)).one_or_none()
        return None if row is None else (Jump(row.at, row.by_s, row.since_s), Piece(Part(row.part), row.after))

    def _move_past_facts(self, jump: Jump, now: float, after: str, last: str) -> None:
        """In the place of a change, for their time is a part of their key, and one may take the place of another."""
        named = and_(past_facts.c.device_id > after, past_facts.c.device_id <= last)
        theirs = and_(named, _was_before(past_facts.c.until, jump, now))
        found = self._connection.execute(select(past_facts).where(theirs)).mappings().all()
        if found:
            self._connection.execute(delete(past_facts).where(theirs))
            moved = [{**row, "until": row["until"] + jump.by_s} for row in found]
            self._connection.execute(insert(self._connection, past_facts).on_conflict_do_nothing(), moved)

    def _end_of_piece(self, key: Column[Any], after: object, limit: int) -> Any:
        piece = select(key.label("key")).where(key > after).order_by(key).limit(limit).subquery()
        return self._connection.scalar(select(func.max(piece.c.key)))


def _is_older(column: Column[Any], jump: Jump, now: float) -> ColumnElement[bool]:
    """Say it as `Jump.is_older` does."""
    return not_(column.between(jump.at - jump.since_s, now))


def _was_before(column: Column[Any], jump: Jump, now: float) -> ColumnElement[bool]:
    """A time that the clock had not reached was taken by another one; where it goes nobody knows."""
    return and_(_is_older(column, jump, now), column <= jump.last)
