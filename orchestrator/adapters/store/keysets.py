"""The keysets that were taken. Implements `ports.Keysets`."""

from __future__ import annotations

from sqlalchemy import Connection, func, or_, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.store.schema import SEQ, counters, deliveries, keysets, rollouts
from orchestrator.core.model import Phase
from orchestrator.errors import ConflictError
from orchestrator.ports.records import DeliveryKind, DeliveryState


class SqlKeysets:
    """Keysets in SQL."""

    _connection: Connection

    def add_keyset(self, epoch: int, lines: bytes, now: float) -> None:
        """See `ports.Keysets.add_keyset`."""
        values = {"epoch": epoch, "lines": lines.decode(), "base": self.highest_seq(), "taken_at": now}
        try:
            self._connection.execute(plain_insert(keysets), values)
        except IntegrityError:
            raise ConflictError(f"keyset {epoch} was taken already", code="keyset_taken") from None

    def keysets(self) -> list[tuple[int, bytes]]:
        """See `ports.Keysets.keysets`."""
        query = select(keysets.c.epoch, keysets.c.lines).order_by(keysets.c.epoch)
        return [(row.epoch, row.lines.encode()) for row in self._connection.execute(query)]

    def newest_epoch(self) -> int:
        """See `ports.Keysets.newest_epoch`."""
        return int(self._connection.scalar(select(func.max(keysets.c.epoch))) or 0)

    def base(self, epoch: int) -> int:
        """See `ports.Keysets.base`."""
        return int(self._connection.scalar(select(keysets.c.base).where(keysets.c.epoch == epoch)) or 0)

    def lowest_good_seq(self, now: float) -> int | None:
        """See `ports.Keysets.lowest_good_seq`."""
        recall = deliveries.c.kind == DeliveryKind.CANCEL.value
        over = [phase.value for phase in (Phase.HALTED, Phase.ABORTED)]
        query = (
            select(func.min(deliveries.c.seq))
            .join(rollouts, rollouts.c.id == deliveries.c.rollout_id)
            .where(deliveries.c.expires_at > now, deliveries.c.state != DeliveryState.VOID.value)
            .where(or_(recall, rollouts.c.phase.not_in(over)))
        )
        lowest: int | None = self._connection.scalar(query)
        return lowest

    def highest_seq(self) -> int:
        """See `ports.Keysets.highest_seq`."""
        return int(self._connection.scalar(select(counters.c.value).where(counters.c.name == SEQ)) or 0)
