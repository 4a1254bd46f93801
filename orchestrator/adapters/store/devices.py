"""The registry of devices. Implements `ports.Registry`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, func, select, update

from orchestrator.adapters.store import rows
from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import devices
from orchestrator.core.model import Device
from orchestrator.wire.report import Hello, Report, State


class SqlRegistry:
    """Devices in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enrol(self, devices_: Iterable[tuple[Device, str]]) -> int:
        """See `ports.Registry.enrol`."""
        values = [rows.device_values(device, token_hash) for device, token_hash in devices_]
        before = self.fleet_size()
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
        return self.fleet_size() - before

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
            self._connection.execute(insert(self._connection, devices).on_conflict_do_nothing(), newcomers)
        found = self._connection.execute(select(devices.c.id).where(devices.c.id.in_(list(latest))))
        known = {row.id for row in found}
        changed = [
            {"b_id": hello.dev, "model": hello.model, "version": hello.ver, "rel": hello.rel, "seen_at": now}
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

    def mark_running(self, reports: Iterable[Report], now: float) -> None:
        """See `ports.Registry.mark_running`."""
        values = [{"b_id": item.dev, "version": item.ver, "rel": item.rel, "seen_at": now} for item in reports]
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

    def devices(self, after: str, limit: int) -> list[Device]:
        """See `ports.Registry.devices`."""
        query = select(devices).where(devices.c.id > after).order_by(devices.c.id).limit(limit)
        return [rows.device(row) for row in self._connection.execute(query)]

    def fleet_size(self) -> int:
        """See `ports.Registry.fleet_size`."""
        return int(self._connection.scalar(select(func.count()).select_from(devices)) or 0)
