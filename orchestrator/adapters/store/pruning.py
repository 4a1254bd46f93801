"""What is deleted once nobody needs it any more. Implements `ports.Pruning`.

Rules:
- An update goes whole, with its reports and deliveries: what a device says of it afterwards is about something unknown,
  so a repetition of its old words can prove nothing.
- No number of an update is given out twice, and beats go by the highest sequence number: the last ones stay.
- Tallies, records and plans of rollouts stay; they are as many as persons make, not as the fleet has devices.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, func, or_, select, tuple_

from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.recent import Recent
from orchestrator.adapters.store.schema import TOUCHED, counters, deliveries, past_facts, reports, rollouts, updates
from orchestrator.core.rollout import FINISHED
from orchestrator.ports import DeliveryState

_ANY = deliveries.alias()
_OVER = sorted(FINISHED)
_WAITING = (DeliveryState.PLANNED.value, DeliveryState.SEALED.value, DeliveryState.CLAIMED.value)


class SqlPruning:
    """Deletions in SQL."""

    _connection: Connection
    _recent: Recent

    def touch(self) -> None:
        """See `ports.Pruning.touch`."""
        statement = insert(self._connection, counters).values(name=TOUCHED, value=0)
        other = {"value": 1 - counters.c.value}  # what stays the same is not written
        self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=other))

    def forget_updates(self, before: float, now: float, limit: int) -> int:
        """See `ports.Pruning.forget_updates`."""
        of_it = deliveries.c.update_id == updates.c.id
        last = deliveries.c.seq == select(func.max(_ANY.c.seq)).scalar_subquery()
        needed = or_(deliveries.c.state.in_(_WAITING), deliveries.c.expires_at > now, last)
        on_its_way = exists().where(of_it, needed)
        old = select(rollouts.c.id).where(rollouts.c.phase.in_(_OVER), rollouts.c.moved_at < before)
        query = (
            select(updates.c.id)
            .where(updates.c.rollout_id.in_(old), updates.c.flight.is_(None), updates.c.deadline_at.is_(None))
            .where(~on_its_way, updates.c.id < select(func.max(updates.c.id)).scalar_subquery())
            .limit(limit)
        )
        found = list(self._connection.scalars(query))
        for table, column in (
            (reports, reports.c.update_id),
            (deliveries, deliveries.c.update_id),
            (updates, updates.c.id),
        ):
            self._connection.execute(delete(table).where(column.in_(found)))
        self._recent.forget(found)
        return len(found)

    def forget_facts(self, before: float, limit: int) -> int:
        """See `ports.Pruning.forget_facts`."""
        key = (past_facts.c.device_id, past_facts.c.until)
        old = select(*key).where(past_facts.c.until <= before).limit(limit)
        return int(self._connection.execute(delete(past_facts).where(tuple_(*key).in_(old))).rowcount)
