"""Deliveries on their way. Implements `ports.Outbox`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, exists, func, or_, select, update
from sqlalchemy import insert as plain_insert

from orchestrator.adapters.store import packed, rows
from orchestrator.adapters.store.lease import Lease, overtaken
from orchestrator.adapters.store.schema import FENCE, OUT, SEQ, WAITING, counters, deliveries, rollouts, updates
from orchestrator.core.model import Update, UpdateState
from orchestrator.ports import EXPOSED, QUEUED, DeliveryKind, DeliveryState, Parcel, Queue

_IS_CURRENT = or_(
    deliveries.c.kind == DeliveryKind.CANCEL.value,
    exists().where(rollouts.c.id == deliveries.c.rollout_id, rollouts.c.version == deliveries.c.rollout_version),
)
# A device that refused raised no mark: once its battery is charged, the same trigger is as good as ever.
_GIVEN_UP = tuple(
    state.value for state in (UpdateState.UNREACHED, UpdateState.PENDING, UpdateState.POSTPONED, UpdateState.REFUSED)
)
_MODEL = select(updates.c.model).where(updates.c.id == bindparam("b_update_id")).scalar_subquery()
_PLAN = plain_insert(deliveries).values(model=_MODEL)


class SqlOutbox:
    """Deliveries in SQL."""

    _lease: Lease | None = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def plan(self, kind: DeliveryKind, updates: Sequence[Update], version: int, now: float, *, push: bool) -> None:
        """See `ports.Outbox.plan`."""
        values = [
            {
                "kind": kind.value,
                "state": DeliveryState.PLANNED.value,
                "update_id": item.id,
                "b_update_id": item.id,
                "attempt": item.attempt,
                "device_id": item.device_id,
                "rollout_id": item.rollout_id,
                "rollout_version": version,
                "stage": item.stage,
                "push": push,
                "planned_at": now,
                "token": "",
                "token_hash": "",
            }
            for item in updates
        ]
        if values:
            self._connection.execute(_PLAN, values)

    def planned(self, limit: int) -> list[Parcel]:
        """See `ports.Outbox.planned`."""
        query = select(deliveries).where(WAITING, deliveries.c.state == DeliveryState.PLANNED.value, _IS_CURRENT)
        recalls_first = deliveries.c.kind != DeliveryKind.CANCEL.value
        return self._parcels(query.order_by(recalls_first, deliveries.c.id).limit(limit))

    def sealed_waiting(self) -> int:
        """See `ports.Outbox.sealed_waiting`."""
        sealed = deliveries.c.state == DeliveryState.SEALED.value
        query = select(func.count()).where(WAITING, sealed, deliveries.c.push, _IS_CURRENT)
        return int(self._connection.scalar(query) or 0)

    def queues(self) -> list[Queue]:
        """See `ports.Outbox.queues`."""
        columns = (deliveries.c.state, deliveries.c.push)
        query = select(*columns, func.count(), func.min(deliveries.c.planned_at)).where(WAITING, _IS_CURRENT)
        found = self._connection.execute(query.group_by(*columns).order_by(*columns))
        return [Queue(DeliveryState(state), bool(push), count, oldest_at) for state, push, count, oldest_at in found]

    def reserve(self, count: int) -> int:
        """See `ports.Outbox.reserve`."""
        lease = self._held()
        statement = update(counters).where(counters.c.name == SEQ).values(value=counters.c.value + count)
        last = int(self._connection.execute(statement.returning(counters.c.value)).scalar_one())
        lease.cover(last)
        return last - count + 1

    def seal(self, parcels: Sequence[Parcel]) -> int:
        """See `ports.Outbox.seal`."""
        if parcels:
            self._held()
        values = [
            {
                "b_id": item.id,
                "seq": item.seq,
                "token": item.token,
                "token_hash": item.token_hash,
                "expires_at": item.expires_at,
            }
            for item in parcels
        ]
        statement = (
            update(deliveries)
            .where(deliveries.c.id == bindparam("b_id"), deliveries.c.state == DeliveryState.PLANNED.value, _IS_CURRENT)
            .values(state=DeliveryState.SEALED.value)
        )
        return int(self._connection.execute(statement, values).rowcount) if values else 0

    def claim(self, limit: int, now: float) -> list[Parcel]:
        """See `ports.Outbox.claim`."""
        query = (
            select(deliveries)
            .where(WAITING, deliveries.c.state == DeliveryState.SEALED.value, deliveries.c.push, _IS_CURRENT)
            .order_by(deliveries.c.seq)
            .limit(limit)
        )
        parcels = self._parcels(query)
        self.settle([item.id for item in parcels], DeliveryState.CLAIMED, now)
        return parcels

    def settle(self, parcel_ids: Iterable[int], state: DeliveryState, now: float) -> None:
        """See `ports.Outbox.settle`."""
        wanted = list(parcel_ids)
        if wanted:
            statement = update(deliveries).where(deliveries.c.id.in_(wanted))
            self._connection.execute(statement.values(state=state.value, settled_at=now))

    def claimed(self) -> list[Parcel]:
        """See `ports.Outbox.claimed`."""
        query = select(deliveries).where(WAITING, deliveries.c.state == DeliveryState.CLAIMED.value)
        return self._parcels(query.order_by(deliveries.c.seq))

    def withdraw(self, rollout_id: int) -> list[int]:
        """See `ports.Outbox.withdraw`."""
        statement = (
            update(deliveries)
            .where(deliveries.c.rollout_id == rollout_id, deliveries.c.kind == DeliveryKind.INSTALL.value)
            .where(WAITING, deliveries.c.state.in_(QUEUED))
            .values(state=DeliveryState.VOID.value)
            .returning(deliveries.c.update_id, deliveries.c.attempt)
        )
        voided = {(row.update_id, row.attempt) for row in self._connection.execute(statement)}
        if not voided:
            return []
        # What a recalled device had before it was offered the release again is no exposure to the present offer.
        present = or_(updates.c.state != UpdateState.OFFERED.value, deliveries.c.planned_at >= updates.c.state_at)
        theirs = and_(deliveries.c.update_id.in_(packed.given_values()), updates.c.id == deliveries.c.update_id)
        columns = (deliveries.c.update_id, deliveries.c.attempt)
        named = [update_id for update_id, _ in voided]
        exposed = packed.fetch(self._connection, columns, and_(theirs, OUT, present), named)
        voided -= {(update_id, attempt) for update_id, attempt in exposed}
        return sorted(update_id for update_id, _ in voided)

    def reachable(self, rollout_id: int, now: float) -> list[int]:
        """See `ports.Outbox.reachable`."""
        later = deliveries.alias()
        recalled = exists().where(
            later.c.update_id == deliveries.c.update_id,
            later.c.id > deliveries.c.id,
            later.c.kind == DeliveryKind.CANCEL.value,
            later.c.state != DeliveryState.VOID.value,
        )
        query = (
            select(updates.c.id)
            .select_from(deliveries)
            .with_hint(deliveries, "INDEXED BY ix_deliveries_out", "sqlite")
            .join(updates, updates.c.id == deliveries.c.update_id)
            .where(deliveries.c.rollout_id == rollout_id, OUT, deliveries.c.expires_at > now)
            .where(updates.c.state.in_(_GIVEN_UP), ~recalled)
            .distinct()
        )
        return sorted(self._connection.scalars(query))

    def were_exposed(self, update_ids: Collection[int]) -> set[int]:
        """See `ports.Outbox.were_exposed`."""
        named = deliveries.c.update_id.in_(packed.given_values())
        found = packed.fetch(self._connection, (deliveries.c.update_id,), and_(named, OUT), list(update_ids))
        return {update_id for (update_id,) in found}

    def parcels(self, update_id: int) -> list[Parcel]:
        """See `ports.Outbox.parcels`."""
        return self._parcels(select(deliveries).where(deliveries.c.update_id == update_id).order_by(deliveries.c.id))

    def hand_over(self, parcel_id: int, now: float) -> bool:
        """See `ports.Outbox.hand_over`."""
        statement = (
            update(deliveries)
            .where(deliveries.c.id == parcel_id, deliveries.c.state == DeliveryState.SEALED.value, _IS_CURRENT)
            .values(state=DeliveryState.SENT.value, settled_at=now)
        )
        if self._connection.execute(statement).rowcount:
            return True
        query = select(deliveries.c.state).where(deliveries.c.id == parcel_id)
        return self._connection.scalar(query) in EXPOSED

    def _held(self) -> Lease:
        """Return the lease, after asking in this transaction whether it is still ours."""
        assert self._lease is not None, "a store that gives out numbers was opened with a lease"
        if self._connection.scalar(select(counters.c.value).where(counters.c.name == FENCE)) != self._lease.fence:
            raise overtaken()
        return self._lease

    def _parcels(self, query: Select[tuple[Any, ...]]) -> list[Parcel]:
        return [rows.parcel(row) for row in self._connection.execute(query)]
