"""Counts over many devices. Implements `ports.Insight`.

Rules:
- The database counts; rows that leave it are as many as there are different answers, or one page.
- A device that never said what it runs has neither a version nor a release counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    case,
    cast,
    delete,
    false,
    func,
    insert,
    or_,
    select,
)

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.schema import censuses, deliveries, devices, reports, updates
from orchestrator.core.model import Device, UpdateState
from orchestrator.core.targeting.advisory import Vulnerable
from orchestrator.core.update import FAILURES, NEUTRAL
from orchestrator.ports import Alike, DeliveryKind, DeliveryState, Kin, Milestone, Ran, Shown, Sign
from orchestrator.wire.report import Kind

_UNKNOWN = and_(devices.c.version == "", devices.c.rel == 0)
_ITS_OFFERS = and_(
    deliveries.c.update_id == updates.c.id,
    deliveries.c.kind == DeliveryKind.INSTALL.value,
    deliveries.c.state != DeliveryState.VOID.value,
)


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

    def census(self, since: Sequence[float]) -> list[Kin]:
        """See `ports.Insight.census`."""
        ages = [(devices.c.seen_at >= at, place) for place, at in enumerate(since)]
        seen = case(*ages, else_=len(since)).label("seen")
        quarantined = case((devices.c.quarantine == "", 0), else_=1).label("quarantined")
        alike = (devices.c.model, devices.c.version, devices.c.rel, devices.c.online, quarantined, seen)
        query = select(*alike, func.count().label("devices")).group_by(*alike)
        return [
            Kin(row.model, row.version, row.rel, row.online, bool(row.quarantined), row.seen, row.devices)
            for row in self._connection.execute(query)
        ]

    def keep_census(self, day: int, found: Sequence[Ran]) -> None:
        """See `ports.Insight.keep_census`."""
        self._connection.execute(delete(censuses).where(censuses.c.day == day))
        if found:
            self._connection.execute(insert(censuses), [ran._asdict() for ran in found])

    def past_censuses(self, since: int) -> list[Ran]:
        """See `ports.Insight.past_censuses`."""
        query = select(censuses).where(censuses.c.day >= since).order_by(*censuses.primary_key.columns)
        return [Ran(row.day, row.version, row.rel, row.devices) for row in self._connection.execute(query)]

    def first_offer_at(self, rollout_id: int) -> float | None:
        """See `ports.Insight.first_offer_at`."""
        times = _times(rollout_id, Milestone.OFFERED).subquery()
        found: float | None = self._connection.scalar(select(func.min(times.c.at)))
        return found

    def shown(self, rollout_id: int, epoch: int, since: float, width_s: float) -> list[Shown]:
        """See `ports.Insight.shown`."""
        return [
            Shown(row.stratum, sign, max(int(row.span), 0), row.devices)
            for sign, query in _signs(rollout_id, epoch).items()
            for row in self._connection.execute(_by_span(query, since, width_s))
        ]


def _signs(rollout_id: int, epoch: int) -> dict[Sign, Select[Any]]:
    """Return when each device that is evidence of an epoch showed each sign, with its stratum."""
    ours, of_epoch = updates.c.rollout_id == rollout_id, updates.c.epoch == epoch
    counts = and_(ours, of_epoch, updates.c.state.not_in([state.value for state in NEUTRAL]))
    when = select(updates.c.stratum, updates.c.state_at.label("at"))
    said = select(func.min(reports.c.at)).where(
        reports.c.update_id == updates.c.id, reports.c.kind.in_([Kind.FAILED.value, Kind.ROLLED_BACK.value])
    )
    again = func.coalesce(said.scalar_subquery(), updates.c.state_at).label("at")
    failed = when.where(ours, of_epoch, updates.c.state.in_([state.value for state in FAILURES]))
    tried = select(updates.c.stratum, again).where(ours, updates.c.failed_epoch == epoch)
    planned = func.min(deliveries.c.planned_at).label("at")
    return {
        Sign.OFFERED: select(updates.c.stratum, planned)
        .select_from(updates.join(deliveries, _ITS_OFFERS))
        .where(counts)
        .group_by(updates.c.id),
        Sign.HEALTHY: when.where(counts, updates.c.state == UpdateState.CONFIRMED.value),
        Sign.FAILED: failed.union_all(tried),  # type: ignore[dict-item]
    }


def _by_span(signs: Select[Any], since: float, width_s: float) -> Select[Any]:
    times = signs.subquery()
    span = cast((times.c.at - since) / width_s, Integer).label("span")
    return select(times.c.stratum, span, func.count().label("devices")).group_by(times.c.stratum, span)


def _times(rollout_id: int, what: Milestone) -> Select[Any]:
    """Return when each device of a rollout came to a milestone."""
    ours = updates.c.rollout_id == rollout_id
    if what is Milestone.CONFIRMED:
        return select(updates.c.state_at.label("at")).where(ours, updates.c.state == UpdateState.CONFIRMED.value)
    first = func.min(deliveries.c.planned_at).label("at")
    return select(first).select_from(updates.join(deliveries, _ITS_OFFERS)).where(ours).group_by(updates.c.id)


def _is_exposed(vulnerable: Vulnerable) -> ColumnElement[bool]:
    """Return what holds for devices that are vulnerable, and for those of the same models that never said."""
    older = [and_(devices.c.model == model, devices.c.rel < rel) for model, rel in sorted(vulnerable.below.items())]
    if vulnerable.below_any is not None:
        older.append(devices.c.rel < vulnerable.below_any)
    return or_(false(), *older)
