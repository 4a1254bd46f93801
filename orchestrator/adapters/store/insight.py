"""Counts over many devices. Implements `ports.Insight`.

Rules:
- The database counts; rows that leave it are as many as there are different answers, or one page.
- A device that never said what it runs has neither a version nor a release counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, and_, case, cast, false, func, or_, select

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.schema import deliveries, devices, updates
from orchestrator.core.model import Device, UpdateState
from orchestrator.core.targeting.advisory import Vulnerable
from orchestrator.ports import Alike, DeliveryKind, DeliveryState, Milestone

_UNKNOWN = and_(devices.c.version == "", devices.c.rel == 0)


class SqlInsight:
    """Counts in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def count_exposed(self, vulnerable: Vulnerable, since: Sequence[float]) -> list[Alike]:
        """See `ports.Insight.count_exposed`."""
        ages = [(devices.c.seen_at >= at, place) for place, at in enumerate(since)]
        seen = case(*ages, else_=len(since)).label("seen")
        unknown = case((_UNKNOWN, 1), else_=0).label("unknown")
        alike = select(devices.c.model, devices.c.site, devices.c.groups, unknown, seen)
        each = alike.where(_is_exposed(vulnerable)).subquery()
        query = select(*each.c, func.count().label("devices")).group_by(*each.c)
        return [
            Alike(row.model, row.site, rows.names(row.groups), not row.unknown, row.seen, row.devices)
            for row in self._connection.execute(query)
        ]

    def exposed(self, vulnerable: Vulnerable, after: str, limit: int) -> list[Device]:
        """See `ports.Insight.exposed`."""
        query = select(devices).where(devices.c.id > after, _is_exposed(vulnerable)).order_by(devices.c.id)
        return [rows.device(row) for row in self._connection.execute(query.limit(limit))]

    def count_endpoints(self) -> dict[int | None, int]:
        """See `ports.Insight.count_endpoints`."""
        query = select(devices.c.endpoints, func.count().label("devices")).group_by(devices.c.endpoints)
        return {row.endpoints: row.devices for row in self._connection.execute(query)}

    def milestones(self, rollout_id: int, what: Milestone, since: float, width_s: int) -> dict[int, int]:
        """See `ports.Insight.milestones`."""
        times = _times(rollout_id, what).subquery()
        span = (cast(times.c.at - since, Integer).op("/")(width_s)).label("span")
        query = select(span, func.count()).group_by(span)
        return {int(place): count for place, count in self._connection.execute(query)}

    def milestone_at(self, rollout_id: int, what: Milestone, place: int) -> float | None:
        """See `ports.Insight.milestone_at`."""
        times = _times(rollout_id, what).subquery()
        query = select(times.c.at).order_by(times.c.at).offset(place - 1).limit(1)
        found: float | None = self._connection.scalar(query)
        return found


def _times(rollout_id: int, what: Milestone) -> Select[Any]:
    """Return when each device of a rollout came to a milestone."""
    ours = updates.c.rollout_id == rollout_id
    if what is Milestone.CONFIRMED:
        return select(updates.c.state_at.label("at")).where(ours, updates.c.state == UpdateState.CONFIRMED.value)
    counts = and_(
        deliveries.c.update_id == updates.c.id,
        deliveries.c.kind == DeliveryKind.INSTALL.value,
        deliveries.c.state != DeliveryState.VOID.value,
    )
    first = func.min(deliveries.c.planned_at).label("at")
    return select(first).select_from(updates.join(deliveries, counts)).where(ours).group_by(updates.c.id)


def _is_exposed(vulnerable: Vulnerable) -> ColumnElement[bool]:
    """Return what holds for devices that are vulnerable, and for those of the same models that never said."""
    older = [and_(devices.c.model == model, devices.c.rel < rel) for model, rel in sorted(vulnerable.below.items())]
    if vulnerable.below_any is not None:
        older.append(devices.c.rel < vulnerable.below_any)
    return or_(false(), *older)
