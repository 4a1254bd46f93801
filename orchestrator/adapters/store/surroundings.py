"""The answers of services, and who is connected. Implements `ports.Surroundings`."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy import insert as plain_insert

from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import ONLINE, counters, devices, gate_answers, outages, updates
from orchestrator.core.judging.outside import Answer, Outage, Verdict
from orchestrator.wire.report import State


class SqlSurroundings:
    """Surroundings in SQL."""

    _connection: Connection

    def gate_answer(self, rollout_id: int, stage: int) -> Answer | None:
        """See `ports.Surroundings.gate_answer`."""
        query = select(gate_answers).where(gate_answers.c.rollout_id == rollout_id, gate_answers.c.stage == stage)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else Answer(row.stage, row.asked_at, Verdict(row.verdict), row.text)

    def save_gate_answer(self, rollout_id: int, answer: Answer) -> None:
        """See `ports.Surroundings.save_gate_answer`."""
        said = {"asked_at": answer.asked_at, "verdict": answer.verdict.value, "text": answer.text}
        statement = insert(self._connection, gate_answers).values(rollout_id=rollout_id, stage=answer.stage, **said)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["rollout_id", "stage"], set_=said))

    def note_connections(self, states: Iterable[State], now: float) -> None:
        """See `ports.Surroundings.note_connections`."""
        latest = {state.dev: state.online for state in states}
        query = select(devices.c.id, devices.c.online).where(devices.c.id.in_(list(latest)))
        known = {row.id: bool(row.online) for row in self._connection.execute(query)}
        went = [name for name, was in known.items() if was and not latest[name]]
        came = [name for name, was in known.items() if not was and latest[name]]
        flying = set(self._connection.scalars(select(updates.c.flight).where(updates.c.flight.in_(went))))
        changes: list[dict[str, object]] = [{"b_id": name, "gone_at": now} for name in went if name not in flying]
        changes += [{"b_id": name, "gone_at": None} for name in came]
        if changes:
            self._connection.execute(update(devices).where(devices.c.id == bindparam("b_id")), changes)
        if more := len(came) - len(went):
            statement = insert(self._connection, counters).values(name=ONLINE, value=more)
            changed = {"value": counters.c.value + more}
            self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))

    def connected(self) -> int:
        """See `ports.Surroundings.connected`."""
        return int(self._connection.scalar(select(counters.c.value).where(counters.c.name == ONLINE)) or 0)

    def gone_since(self, at: float) -> int:
        """See `ports.Surroundings.gone_since`."""
        return int(self._connection.scalar(select(func.count()).where(devices.c.gone_at >= at)) or 0)

    def outage(self) -> Outage | None:
        """See `ports.Surroundings.outage`."""
        query = select(outages).where(outages.c.ended_at.is_(None)).order_by(outages.c.began_at)
        row = self._connection.execute(query).first()
        return None if row is None else Outage(row.began_at, row.gone, row.share)

    def begin_outage(self, outage: Outage) -> None:
        """See `ports.Surroundings.begin_outage`."""
        values = {"began_at": outage.began_at, "gone": outage.gone, "share": outage.share}
        self._connection.execute(plain_insert(outages), values)

    def end_outage(self, now: float) -> None:
        """See `ports.Surroundings.end_outage`."""
        self._connection.execute(update(outages).where(outages.c.ended_at.is_(None)).values(ended_at=now))
