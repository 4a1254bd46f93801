"""The keysets that were taken. Implements `ports.Keysets`."""

from __future__ import annotations

from sqlalchemy import Connection, func, or_, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.lease import rewound
from orchestrator.adapters.store.schema import SEQ, WAITING, counters, deliveries, footings, keysets, rollouts
from orchestrator.core.model import Phase
from orchestrator.errors import ConflictError
from orchestrator.ports.keysets import Footing
from orchestrator.ports.records import DeliveryKind, DeliveryState

_PLANNED = select(deliveries.c.id).where(WAITING, deliveries.c.state == DeliveryState.PLANNED.value).limit(1)


class SqlKeysets:
    """Keysets in SQL."""

    _connection: Connection

    def add_keyset(self, epoch: int, lines: bytes, now: float) -> None:
        """See `ports.Keysets.add_keyset`."""
        highest = self.highest_seq()
        lost_from = rewound(self._connection)  # devices may hold this keyset already, and count from a lower number
        base = highest if lost_from is None else lost_from
        values = {"epoch": epoch, "lines": lines.decode(), "base": base, "taken_at": now}
        try:
            self._connection.execute(plain_insert(keysets), values)
        except IntegrityError:
            raise ConflictError(f"keyset {epoch} was taken already", code="keyset_taken") from None

    def keysets(self) -> list[tuple[int, bytes]]:
        """See `ports.Keysets.keysets`."""
        query = select(keysets.c.epoch, keysets.c.lines).order_by(keysets.c.epoch)
        return [(row.epoch, row.lines.encode()) for row in self._connection.execute(query)]

    def keyset_taken_at(self) -> float:
        """See `ports.Keysets.keyset_taken_at`."""
        return float(self._connection.scalar(select(func.max(keysets.c.taken_at))) or 0.0)

    def newest_epoch(self) -> int:
        """See `ports.Keysets.newest_epoch`."""
        return int(self._connection.scalar(select(func.max(keysets.c.epoch))) or 0)

    def footing(self) -> Footing | None:
        """See `ports.Keysets.footing`."""
        row = self._connection.execute(select(footings.c.epoch, footings.c.digest)).one_or_none()
        return None if row is None else Footing(*row)

    def stand_on(self, footing: Footing, now: float) -> None:
        """See `ports.Keysets.stand_on`."""
        values = {"epoch": footing.epoch, "digest": footing.digest, "since": now}
        statement = insert(self._connection, footings).values(id=1, **values)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    def base(self, epoch: int) -> int:
        """See `ports.Keysets.base`."""
        return int(self._connection.scalar(select(keysets.c.base).where(keysets.c.epoch == epoch)) or 0)

    def lowest_good_seq(self, now: float) -> int | None:
        """See `ports.Keysets.lowest_good_seq`."""
        above = self._connection.scalar(select(func.max(keysets.c.base))) or 0
        recall = deliveries.c.kind == DeliveryKind.CANCEL.value
        over = [phase.value for phase in (Phase.HALTED, Phase.ABORTED)]
        query = (
            select(func.min(deliveries.c.seq))
            .join(rollouts, rollouts.c.id == deliveries.c.rollout_id)
            .where(deliveries.c.seq > above, deliveries.c.expires_at > now)
            .where(deliveries.c.state != DeliveryState.VOID.value)
            .where(or_(recall, rollouts.c.phase.not_in(over)))
        )
        lowest: int | None = self._connection.scalar(query)
        if lowest is not None or not self._connection.scalar(_PLANNED):
            return lowest
        # Numbers above the last stored one may be those of tokens that are being signed.
        return int(self._connection.scalar(select(func.max(deliveries.c.seq))) or 0) + 1

    def highest_seq(self) -> int:
        """See `ports.Keysets.highest_seq`."""
        return int(self._connection.scalar(select(counters.c.value).where(counters.c.name == SEQ)) or 0)
