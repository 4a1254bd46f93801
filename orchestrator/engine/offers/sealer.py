"""The sealer: planned deliveries become signed tokens.

Rules:
- Sequence numbers are reserved durably before anything is signed with them: a crash leaves a gap,
  never a second token under the same number.
- Signing happens outside every transaction; what was voided or outdated meanwhile is not stored.
- The entry of a sealed batch in the audit log stands in the transaction that stores its tokens.
- Only a bounded number of sealed deliveries waits for the broker, so that a recall is never far from
  the front.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import structlog

from orchestrator.core import trigger
from orchestrator.core.model import DAEMON, Artifact, Rollout, Urgency
from orchestrator.core.trust import audit
from orchestrator.engine.offers import holds
from orchestrator.engine.rollouts.releases import by_model, release_of
from orchestrator.engine.trust.keyring import Standing
from orchestrator.errors import OrchestratorError, RequestError, UnavailableError
from orchestrator.ports import DeliveryKind, DeliveryState, Lane, Parcel, Store, Tx
from orchestrator.verifier import COSIGN
from orchestrator.verifier.fields import decode64, read_claims
from orchestrator.wire import token

RETRY_S = 1.0
_JTI_BYTES = 12
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SealerSettings:
    """How triggers are made.

    Attributes:
        deployment: identifier that devices are pinned to.
        public_url: origin of the stable locator, without a slash at the end.
        lifetime_s: longest validity of a trigger.
        batch: deliveries signed together.
        ahead: sealed deliveries that may wait for the broker.
    """

    deployment: str
    public_url: str
    lifetime_s: float
    batch: int = 50
    ahead: int = 200


class _Numbers(NamedTuple):
    """The first sequence number of a batch, and the one that the epoch counts from."""

    first: int
    base: int


@dataclass(frozen=True, slots=True)
class _Order:
    """A planned delivery with all that its token says; `closes_at` is when its device may not begin any more."""

    parcel: Parcel
    rollout: Rollout
    artifact: Artifact
    recalls: str
    warrant: bytes | None
    closes_at: float


class Sealer:
    """Signs planned deliveries.

    Args:
        store: where they are.
        standing: with which key to sign now, and under which epoch; raises UnavailableError while there is none.
        settings: how triggers are made.
        now: the clock.
        planned: set when deliveries were planned or published.
        sealed: called when deliveries were sealed.
    """

    def __init__(
        self,
        store: Store,
        standing: Callable[[], Standing],
        settings: SealerSettings,
        now: Callable[[], float],
        planned: asyncio.Event,
        sealed: Callable[[], None],
    ) -> None:
        self._store = store
        self._standing = standing
        self._settings = settings
        self._now = now
        self._sealed = sealed
        self._woken = planned

    async def run(self) -> None:
        """Seal for ever."""
        self._woken.set()
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                while await self.seal_once():
                    self._sealed()
            except UnavailableError as error:
                _log.error("sealer.waits", error=error.message)
                await asyncio.sleep(RETRY_S)
                self._woken.set()

    async def seal_once(self) -> int:
        """Seal one batch; returns how many deliveries were taken, 0 if there is nothing to do now."""
        standing = self._standing()
        orders, numbers = await self._store.transact(Lane.OPERATOR, partial(self._take, epoch=standing.epoch))
        if not orders:
            return 0
        signed = await asyncio.to_thread(self._sign_all, orders, numbers, standing)
        refused = {order.parcel.id for order in orders} - {parcel.id for parcel in signed}
        await self._store.transact(Lane.OPERATOR, partial(self._keep, signed=signed, refused=refused))
        return len(orders)

    def _keep(self, tx: Tx, signed: Sequence[Parcel], refused: set[int]) -> None:
        now = self._now()
        if tx.seal(signed):
            lines = tx.sealed_between(signed[0].seq or 0, signed[-1].seq or 0)
            tx.audit(DAEMON, audit.SEALED, f"seq {lines[0][0]} to {lines[-1][0]}", audit.batch_detail(lines), now)
        tx.settle(refused, DeliveryState.VOID, now)

    def _take(self, tx: Tx, epoch: int) -> tuple[list[_Order], _Numbers]:
        """Take what to sign; nothing while a newer keyset is stored than the one that we would sign under."""
        room = self._settings.ahead - tx.sealed_waiting()
        planned = tx.planned(min(room, self._settings.batch)) if room > 0 else []
        orders = _orders(tx, planned, self._now())
        if not orders or tx.newest_epoch() > epoch:
            return [], _Numbers(0, 0)
        return orders, _Numbers(tx.reserve(len(orders)), tx.base(epoch))

    def _sign_all(self, orders: Sequence[_Order], numbers: _Numbers, standing: Standing) -> list[Parcel]:
        now = self._now()
        signed = []
        for seq, order in enumerate(orders, start=numbers.first):
            try:
                signed.append(self._sign(order, seq, seq - numbers.base, standing, now))
            except UnavailableError:
                raise  # the signer is away; all of this is tried again
            except OrchestratorError as error:
                _log.error("trigger.refused", device=order.parcel.device_id, code=error.code, error=error.message)
        return signed

    def _sign(self, order: _Order, seq: int, counted: int, standing: Standing, now: float) -> Parcel:
        parcel, plan = order.parcel, order.rollout.plan
        proofs, proven_until = _proofs(order, standing.epoch, now)
        if order.closes_at < now + 1:
            raise RequestError("the hours of the device have closed; it is offered the release again", code="closed")
        wanted_s = max(min(self._settings.lifetime_s, plan.deadlines.accept_s), 1.0)
        expires_at = min(now + wanted_s, proven_until, order.closes_at)
        issue = trigger.Issue(
            deployment=self._settings.deployment,
            epoch=standing.epoch,
            device=parcel.device_id,
            rollout=str(parcel.rollout_id),
            update_id=parcel.update_id,
            attempt=parcel.attempt,
            seq=counted,
            jti=token.encode64(secrets.token_bytes(_JTI_BYTES)),
            issued_at=now,
            expires_at=expires_at,
        )
        claims = self._claims(order, issue)
        signed = token.signing_input(token.TokenType.TRIGGER, standing.signer.kid, claims)
        made = token.assemble(signed, standing.signer.sign(signed))
        return replace(
            parcel,
            seq=seq,
            token=token.bundle([made, *proofs]).decode(),
            token_hash=token.hash_of(made),
            expires_at=expires_at,
        )

    def _claims(self, order: _Order, issue: trigger.Issue) -> dict[str, object]:
        artifact = order.artifact
        if order.parcel.kind is DeliveryKind.CANCEL:
            if not order.recalls:
                raise RequestError("there is no trigger that could be recalled", code="never_sealed")
            return trigger.recall_claims(issue, component=artifact.component, token_hash=order.recalls)
        return trigger.install_claims(
            issue,
            artifact,
            stage=order.parcel.stage,
            urls=[f"{self._settings.public_url}/v1/dl/{artifact.sha256}"],
            statement_hash=token.hash_of(artifact.statement.encode()),
            urgency=list(Urgency).index(order.rollout.plan.urgency),
            policy=trigger.conditions(order.rollout.plan.require),
            act="rollback" if order.rollout.plan.leaves else "install",
        )


def _orders(tx: Tx, parcels: Sequence[Parcel], now: float) -> list[_Order]:
    rollouts: dict[int, Rollout] = {}
    warrants: dict[int, bytes | None] = {}
    artifacts: dict[tuple[int, str], Artifact] = {}
    orders = []
    for parcel in parcels:
        if parcel.rollout_id not in rollouts:
            rollout = tx.rollout(parcel.rollout_id)
            assert rollout is not None, "a delivery always belongs to a rollout"
            rollouts[parcel.rollout_id] = rollout
            warrants[parcel.rollout_id] = tx.warrant(parcel.rollout_id)
            brought = by_model(tx, release_of(tx, rollout))
            artifacts |= {(parcel.rollout_id, model): item for model, item in brought.items()}
        recalls = _recalled_hash(tx, parcel) if parcel.kind is DeliveryKind.CANCEL else ""
        artifact = artifacts[parcel.rollout_id, parcel.model]
        orders.append(
            _Order(parcel, rollouts[parcel.rollout_id], artifact, recalls, warrants[parcel.rollout_id], math.inf)
        )
    return _within_hours(tx, rollouts, orders, now)


def _within_hours(tx: Tx, rollouts: Mapping[int, Rollout], orders: Sequence[_Order], now: float) -> list[_Order]:
    """Return the orders with the time at which each device may not begin any more; a recall always may come."""
    ends: dict[tuple[int, str], float] = {}
    for rollout_id, rollout in rollouts.items():
        names = [item.parcel.device_id for item in orders if _begins(item, rollout_id)]
        closing = holds.closes_at(tx, rollout, names, now)
        ends |= {(rollout_id, name): at for name, at in closing.items()}
    return [
        replace(item, closes_at=ends.get((item.rollout.id, item.parcel.device_id), math.inf))
        if _begins(item, item.rollout.id)
        else item
        for item in orders
    ]


def _begins(order: _Order, rollout_id: int) -> bool:
    return order.rollout.id == rollout_id and order.parcel.kind is DeliveryKind.INSTALL


def _proofs(order: _Order, epoch: int, now: float) -> tuple[list[bytes], float]:
    """Return what stands behind a trigger, and until when it is good: the statement, the warrant of an emergency.

    A device that refuses a trigger is asked no more in this rollout, so nothing is sealed with a warrant that it would
    not take: the offer waits until there is another one.
    """
    if order.parcel.kind is DeliveryKind.CANCEL:
        return [], math.inf
    statement = order.artifact.statement.encode()
    if order.rollout.plan.urgency is not Urgency.EMERGENCY:
        return [statement], math.inf
    if order.warrant is None:
        raise RequestError("an emergency needs a warrant", code="warrant_needed")
    warrant = read_claims(decode64(order.warrant.split(b".")[1]), COSIGN)
    if warrant["ep"] != epoch or now + 1 > warrant["exp"]:
        text = "the warrant has expired or is of older keys; let cosigners sign another one, and submit it"
        raise RequestError(text, code="warrant_outdated")
    return [statement, *order.warrant.split(b"\n")], warrant["exp"]


def _recalled_hash(tx: Tx, parcel: Parcel) -> str:
    """Return the hash of the last trigger of the attempt, "" if none was sealed.

    A recall works by `att`, the hash is evidence.
    """
    hashes = [
        item.token_hash
        for item in tx.parcels(parcel.update_id)
        if item.kind is DeliveryKind.INSTALL and item.attempt == parcel.attempt and item.token_hash
    ]
    return hashes[-1] if hashes else ""
