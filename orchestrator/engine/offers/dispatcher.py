"""The dispatcher: sealed deliveries go to the broker, in the order of their sequence numbers.

Rules:
- Claimed before published, settled after the broker acknowledged: a crash in between repeats the
  identical bytes, which a device takes as what it holds already.
- Batches are small and the version of the rollout is read again with each, so that a halt leaves at
  most one batch on the wire; the recalls of that halt come right behind it.
- Nothing is sent while a stop waits for the store, whichever rollout it stops.
- What expired in the queue is voided and planned anew.
- What was claimed when the link or the process broke is published again if its rollout still runs,
  and otherwise marked unknown and recalled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from orchestrator.core.model import Phase, UpdateState
from orchestrator.engine.rollouts import effects
from orchestrator.engine.rollouts.reaction import Reaction
from orchestrator.errors import UnavailableError
from orchestrator.ports import Bus, DeliveryKind, DeliveryState, Lane, Parcel, Store, Tx
from orchestrator.wire import topics

RETRY_S = 0.5
_AWAITS = {DeliveryKind.INSTALL: UpdateState.OFFERED, DeliveryKind.CANCEL: UpdateState.RECALLING}
"""State of an update whose device still needs a delivery of this kind."""

_log = structlog.get_logger(__name__)


async def _none() -> None:
    """No stop waits."""


class Dispatcher:
    """Publishes sealed deliveries.

    Args:
        store: where they are.
        bus: where they go.
        batch: deliveries claimed together.
        now: the clock.
        sealed: set when deliveries were sealed.
        drained: called when there is room for more sealed deliveries.
        store_stops: stores the stops that wait for that; it raises what `Store.transact` raises.
        reaction: hears which triggers went out, None for nobody.

    Attributes:
        published: triggers and recalls that the broker has taken.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        batch: int,
        now: Callable[[], float],
        sealed: asyncio.Event,
        drained: Callable[[], None],
        store_stops: Callable[[], Awaitable[None]] = _none,
        reaction: Reaction | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._batch = batch
        self._now = now
        self._drained = drained
        self._store_stops = store_stops
        self._reaction = reaction or Reaction()
        self._woken = sealed
        self.published = 0

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            try:
                await self._work()
            except UnavailableError as error:
                _log.warning("dispatcher.waits", code=error.code, error=error.message)
                await asyncio.sleep(RETRY_S)

    async def _work(self) -> None:
        while not self._bus.link:
            await asyncio.sleep(RETRY_S / 10)
        await self._store_stops()
        await self._recover()
        sent: list[int] = []
        while self._bus.link:
            await self._store_stops()
            parcels = await self._store.transact(Lane.OPERATOR, partial(self._turn, sent=sent))
            self._reaction.turned()
            sent = []
            if parcels:
                sent = await self._publish(parcels)
                continue
            self._drained()
            await self._woken.wait()
            self._woken.clear()

    def _turn(self, tx: Tx, sent: Sequence[int]) -> list[Parcel]:
        """Settle what was published and claim the next batch, in one transaction."""
        now = self._now()
        tx.settle(sent, DeliveryState.SENT, now)
        while claimed := tx.claim(self._batch, now):
            fresh = [parcel for parcel in claimed if _is_fresh(parcel, now)]
            _renew(tx, [parcel for parcel in claimed if not _is_fresh(parcel, now)], now)
            if fresh:
                return fresh
        return []

    async def _recover(self) -> None:
        """Finish what an earlier link or process left claimed."""
        parcels = await self._store.transact(Lane.OPERATOR, partial(_sort_out, now=self._now()))
        if parcels:
            _log.info("deliveries.repeated", count=len(parcels))
            sent = await self._publish(parcels)
            await self._store.transact(Lane.OPERATOR, lambda tx: tx.settle(sent, DeliveryState.SENT, self._now()))
        self._drained()

    async def _publish(self, parcels: Sequence[Parcel]) -> list[int]:
        """Publish in order and return the numbers of those that the broker acknowledged.

        Raises:
            UnavailableError: some were not acknowledged; those stay claimed.
        """
        now = self._now()
        results = await asyncio.gather(
            *(
                self._bus.publish(
                    topics.command(parcel.device_id),
                    parcel.token.encode(),
                    expiry_s=max(1, int((parcel.expires_at or now) - now)),
                )
                for parcel in parcels
            ),
            return_exceptions=True,
        )
        sent = [parcel.id for parcel, result in zip(parcels, results, strict=True) if result is None]
        self.published += len(sent)
        self._reaction.published({parcel.rollout_id for parcel in parcels if parcel.kind is DeliveryKind.INSTALL})
        refused = [parcel for parcel, result in zip(parcels, results, strict=True) if _is_refusal(result)]
        if refused:
            # The device may hear of it when it says hello; what one message is refused for must not stop the others.
            _log.error("deliveries.refused", count=len(refused), example=refused[0].device_id)
            unknown = [parcel.id for parcel in refused]
            await self._store.transact(Lane.OPERATOR, lambda tx: tx.settle(unknown, DeliveryState.UNKNOWN, self._now()))
        failed = next((item for item in results if isinstance(item, BaseException) and not _is_refusal(item)), None)
        if failed is None:
            return sent
        await self._store.transact(Lane.OPERATOR, lambda tx: tx.settle(sent, DeliveryState.SENT, self._now()))
        raise failed


def _is_fresh(parcel: Parcel, now: float) -> bool:
    return (parcel.expires_at or 0.0) > now


def _renew(tx: Tx, stale: Sequence[Parcel], now: float) -> None:
    """Plan deliveries anew that expired while the broker was away: devices would refuse them for good."""
    tx.settle([parcel.id for parcel in stale], DeliveryState.VOID, now)
    updates = tx.updates({parcel.update_id for parcel in stale})
    for parcel in stale:
        update = updates[parcel.update_id]
        if update.state is _AWAITS[parcel.kind]:
            tx.plan(parcel.kind, [update], parcel.rollout_version, now, push=True)


def _is_refusal(result: BaseException | None) -> bool:
    return isinstance(result, UnavailableError) and result.code == "publish_refused"


def _sort_out(tx: Tx, now: float) -> list[Parcel]:
    """Return the claimed deliveries to publish again; mark and recall the others."""
    again = []
    for parcel in tx.claimed():
        rollout = tx.rollout(parcel.rollout_id)
        assert rollout is not None, "a delivery always belongs to a rollout"
        fresh = _is_fresh(parcel, now)
        if fresh and (parcel.kind is DeliveryKind.CANCEL or rollout.phase is Phase.RUNNING):
            again.append(parcel)
            continue
        tx.settle([parcel.id], DeliveryState.UNKNOWN, now)
        update = tx.updates([parcel.update_id])[parcel.update_id]
        if parcel.kind is DeliveryKind.INSTALL and update.state is UpdateState.OFFERED and fresh:
            effects.recall(tx, rollout, [update], now)
    return again
