"""The registry of devices. Implements `ports.Registry`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, update

from orchestrator.adapters.store import packed, rows
from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import (
    FLEET,
    REGISTRY,
    UNSIGNED_CLIENTS,
    counters,
    devices,
    past_facts,
    permissions,
)
from orchestrator.core.model import Device, Facts
from orchestrator.core.pace.hold import Situation
from orchestrator.core.targeting.cohort import Sieve
from orchestrator.wire.report import Hello, Report, State

_NAMED = devices.c.id.in_(packed.given_values())
_SEE = (
    update(devices)
    .where(devices.c.id == bindparam("b_id"), func.coalesce(devices.c.seen_at, 0.0) < bindparam("b_at"))
    .values(seen_at=bindparam("b_at"))
)


class SqlRegistry:
    """Devices in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enrol(self, devices_: Iterable[tuple[Device, str]]) -> int:
        """See `ports.Registry.enrol`."""
        values = [rows.device_values(device, token_hash) for device, token_hash in devices_]
        newcomers = len({str(row["id"]) for row in values} - self._known(str(row["id"]) for row in values))
        statement = insert(self._connection, devices)
        fresh = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={
                "model": fresh.model,
                "groups": fresh.groups,
                "token_hash": func.coalesce(fresh.token_hash, devices.c.token_hash),
            },
        )
        if values:
            self._connection.execute(statement, values)
            self._note_change(newcomers)
        return newcomers

    def greet(self, hellos: Sequence[Hello], now: float, *, enrol: bool) -> set[str]:
        """See `ports.Registry.greet`."""
        if not hellos:
            return set()
        latest = {hello.dev: hello for hello in hellos}
        if enrol:
            newcomers = [
                rows.device_values(Device(hello.dev, hello.model, (), hello.ver, hello.rel, now, now, None), "")
                for hello in latest.values()
            ]
            statement = insert(self._connection, devices).on_conflict_do_nothing()
            if fresh := self._connection.execute(statement, newcomers).rowcount:
                self._note_change(fresh)
        known = self._known(latest)
        changed = [
            {
                "b_id": hello.dev,
                "model": hello.model,
                "version": hello.ver,
                "rel": hello.rel,
                "endpoints": hello.eps,
                "seen_at": now,
            }
            for hello in latest.values()
            if hello.dev in known
        ]
        if changed:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), changed)
        return known

    def mark_online(self, states: Iterable[State], now: float) -> None:
        """See `ports.Registry.mark_online`."""
        values = [{"b_id": state.dev, "online": state.online, "seen_at": now} for state in states]
        if values:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), values)

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """See `ports.Registry.mark_seen`."""
        values = [{"b_id": name, "b_at": at} for name, at in seen.items()]
        if values:
            self._connection.execute(_SEE, values)

    def mark_running(self, reports: Iterable[Report], now: float) -> None:
        """See `ports.Registry.mark_running`."""
        values = [{"b_id": item.dev, "version": item.ver, "rel": item.rel, "seen_at": now} for item in reports]
        if values:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), values)

    def mark_moved(self, reports: Iterable[Report], now: float) -> None:
        """See `ports.Registry.mark_moved`."""
        values = [{"b_id": item.dev, "endpoints": item.rel, "seen_at": now} for item in reports]
        if values:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), values)

    def device(self, device_id: str) -> Device | None:
        """See `ports.Registry.device`."""
        row = self._connection.execute(select(devices).where(devices.c.id == device_id)).one_or_none()
        return None if row is None else rows.device(row)

    def device_by_token(self, token_hash: str) -> Device | None:
        """See `ports.Registry.device_by_token`."""
        row = self._connection.execute(select(devices).where(devices.c.token_hash == token_hash)).one_or_none()
        return None if row is None else rows.device(row)

    def devices(self, after: str, limit: int, sieve: Sieve | None = None) -> list[Device]:
        """See `ports.Registry.devices`."""
        query = select(devices).where(devices.c.id > after).order_by(devices.c.id).limit(limit)
        if sieve is not None:
            query = query.where(*_conditions(sieve))
        return [rows.device(row) for row in self._connection.execute(query)]

    def devices_named(self, device_ids: Iterable[str]) -> list[Device]:
        """See `ports.Registry.devices_named`."""
        query = select(devices).where(devices.c.id.in_(list(device_ids))).order_by(devices.c.id)
        return [rows.device(row) for row in self._connection.execute(query)]

    def set_facts(self, changed: Sequence[Device], now: float) -> None:
        """See `ports.Registry.set_facts`."""
        values = [{"b_id": item.id, **rows.facts_values(item.facts), "facts_at": now} for item in changed]
        if values:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), values)
            self._note_change()

    def keep_facts(self, before: Sequence[Device], now: float) -> None:
        """See `ports.Registry.keep_facts`."""
        values = [{"device_id": item.id, "until": now, "facts": rows.to_json(item.facts)} for item in before]
        if values:
            self._connection.execute(insert(self._connection, past_facts).on_conflict_do_nothing(), values)

    def past_facts(self, device_ids: Iterable[str], at: float) -> dict[str, Facts]:
        """See `ports.Registry.past_facts`."""
        named = past_facts.c.device_id.in_(list(device_ids))
        query = select(past_facts).where(named, past_facts.c.until > at).order_by(past_facts.c.until.desc())
        return {row.device_id: rows.facts(row.facts) for row in self._connection.execute(query)}

    def quarantine(self, device_ids: Sequence[str], reason: str, now: float) -> None:
        """See `ports.Registry.quarantine`."""
        self._set_quarantine(device_ids, reason, now)

    def release_quarantine(self, device_ids: Sequence[str]) -> None:
        """See `ports.Registry.release_quarantine`."""
        self._set_quarantine(device_ids, "", None)

    def _set_quarantine(self, device_ids: Sequence[str], reason: str, at: float | None) -> None:
        if device_ids:
            values = [{"b_id": device_id, "quarantine": reason, "quarantined_at": at} for device_id in device_ids]
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), values)
            self._note_change()

    def situations(self, device_ids: Iterable[str]) -> dict[str, Situation]:
        """See `ports.Registry.situations`."""
        query = select(devices.c.id, devices.c.situation).where(devices.c.id.in_(list(device_ids)))
        return {row.id: rows.situation(row.situation) for row in self._connection.execute(query)}

    def save_situations(self, situations: Mapping[str, Situation]) -> None:
        """See `ports.Registry.save_situations`."""
        values = [{"b_id": name, "situation": rows.to_json(item)} for name, item in situations.items()]
        if values:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), values)

    def unsigned_clients(self) -> str:
        """See `ports.Registry.unsigned_clients`."""
        query = select(permissions.c.reason).where(permissions.c.name == UNSIGNED_CLIENTS)
        return self._connection.scalar(query) or ""

    def allow_unsigned_clients(self, reason: str, now: float) -> None:
        """See `ports.Registry.allow_unsigned_clients`."""
        values = {"reason": reason, "since": now}
        statement = insert(self._connection, permissions).values(name=UNSIGNED_CLIENTS, **values)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
        self._note_change()

    def registry_version(self) -> int:
        """See `ports.Registry.registry_version`."""
        return self._counted(REGISTRY)

    def fleet_size(self) -> int:
        """See `ports.Registry.fleet_size`."""
        return self._counted(FLEET)

    def _known(self, device_ids: Iterable[str]) -> set[str]:
        found = packed.fetch(self._connection, [devices.c.id], _NAMED, list(device_ids))
        return {device_id for (device_id,) in found}

    def _note_change(self, newcomers: int = 0) -> None:
        for name, more in ((REGISTRY, 1), (FLEET, newcomers)):
            statement = insert(self._connection, counters).values(name=name, value=more)
            risen = {"value": counters.c.value + more}
            self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=risen))

    def _counted(self, name: str) -> int:
        return int(self._connection.scalar(select(counters.c.value).where(counters.c.name == name)) or 0)


def _conditions(sieve: Sieve) -> list[ColumnElement[bool]]:
    """Return what every wanted device meets; facts that changed since are let through."""
    found: list[ColumnElement[bool]] = []
    if sieve.below_rel is not None:
        found.append((devices.c.endpoints if sieve.moves else devices.c.rel) < sieve.below_rel)
    if sieve.quarantined:
        found.append(devices.c.quarantine != "")
    for name, values in sieve.words.items():
        meets = devices.c[name].in_(sorted(values))
        changed = name in Facts.__dataclass_fields__ and sieve.fixed_at is not None
        found.append(or_(meets, devices.c.facts_at > sieve.fixed_at) if changed else meets)
    return found
