"""The herald: what lies retained at the broker is what is true now: the keysets, and a fresh beat.

Rules:
- Only what may come any number of times is retained, and everything with an expiry.
- Said anew on each connection, when the keys change, and often enough that no beat ever runs out while we live.
- While devices move to other endpoints beats come often: each keeps the new ones only once it heard a fresh beat there.
- Who asks for a beat gets one as fresh, whether the broker can be reached or not; however many ask, it is signed once.
- A daemon without a beat key says keysets only; one that cannot sign a beat now says keysets no more often for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from orchestrator.core import trigger
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Bus, Signer, Store, Tx
from orchestrator.wire import token, topics

LOOK_EVERY_S = 1.0
RETRY_S = 5.0
KEYSET_EXPIRY_S = 30 * 86_400
"""A keyset is said anew long before; one of a daemon that is gone must not lie there for ever."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HeraldSettings:
    """What the herald says and how often.

    Attributes:
        deployment: identifier that devices are pinned to.
        every_s: pause between two beats.
        lifetime_s: how long a beat is good.
        moving_every_s: pause between two beats while devices move to other endpoints; none that was asked for is older.
    """

    deployment: str
    every_s: float = 3600.0
    lifetime_s: float = 48 * 3600.0
    moving_every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Keys:
    """What devices shall believe now.

    Attributes:
        epoch: present key epoch.
        beat: who signs beats, None for nobody.
    """

    epoch: int
    beat: Signer | None


@dataclass(frozen=True, slots=True)
class _Said:
    """When something was said last: over which link, under which epoch, at what time."""

    link: int = 0
    epoch: int = 0
    at: float = 0.0

    def is_old(self, present: _Said, every_s: float) -> bool:
        """Say whether it is to be said anew; after a clock was set back it is."""
        same = (self.link, self.epoch) == (present.link, present.epoch)
        return not (same and self.at <= present.at < self.at + every_s)


class Herald:
    """Keeps the retained messages true.

    Args:
        store: knows the highest sequence number.
        bus: where they lie.
        settings: what and how often.
        keys: the present keys.
        now: the clock.
    """

    def __init__(
        self, store: Store, bus: Bus, settings: HeraldSettings, keys: Callable[[], Keys], now: Callable[[], float]
    ) -> None:
        self._store = store
        self._bus = bus
        self._settings = settings
        self._keys = keys
        self._now = now
        self._keysets = _Said()
        self._beats = _Said()
        self._looked = _Said()
        self._answered = _Said()
        self._answer = b""
        self._one_at_a_time = asyncio.Lock()

    async def beat(self) -> bytes | None:
        """Return a fresh beat for a device that asks; None where no key signs any, or the signer was away just now.

        Raises:
            UnavailableError: the signer is away.
        """
        async with self._one_at_a_time:
            keys = self._keys()
            if keys.beat is None:
                return None
            every_s = self._settings.moving_every_s if self._answer else RETRY_S
            if self._answered.is_old(_Said(0, keys.epoch, self._now()), every_s):
                self._answer = b""
                try:
                    self._answer = await self._signed(keys.beat, keys.epoch)
                finally:
                    self._answered = _Said(0, keys.epoch, self._now())
            return self._answer or None

    async def run(self, pause: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        """Keep them true for ever."""
        while True:
            await pause(LOOK_EVERY_S)
            try:
                await self.say_if_due()
            except OrchestratorError as error:
                _log.warning("herald.waits", code=error.code, error=error.message)
                await pause(RETRY_S)

    async def say_if_due(self) -> bool:
        """Say everything if the connection or the keys are new or a beat is due; returns whether it was said.

        Raises:
            UnavailableError: the link broke, or the signer is away.
        """
        link, keys = self._bus.link, self._keys()
        present = _Said(link, keys.epoch, self._now())
        if not link or not await self._is_due(present):
            return False
        if self._keysets.is_old(present, self._settings.every_s):
            for epoch, bundle in await self._store.read(lambda tx: tx.keysets()):
                await self._bus.publish(topics.keyset(epoch), bundle, expiry_s=KEYSET_EXPIRY_S, retain=True)
            self._keysets = present
        if keys.beat is not None:
            beat = await self._signed(keys.beat, keys.epoch)
            await self._bus.publish(topics.BEAT, beat, expiry_s=int(self._settings.lifetime_s), retain=True)
        self._beats = present
        return True

    async def _is_due(self, present: _Said) -> bool:
        if self._beats.is_old(present, self._settings.every_s):
            return True
        often_s = self._settings.moving_every_s
        if not self._beats.is_old(present, often_s) or not self._looked.is_old(present, often_s):
            return False
        self._looked = present
        return await self._store.read(_is_moving)

    async def _signed(self, signer: Signer, epoch: int) -> bytes:
        now = self._now()
        seq, floor = await self._store.read(lambda tx: _bounds(tx, epoch, now))
        claims = trigger.beat_claims(
            deployment=self._settings.deployment,
            epoch=epoch,
            seq=seq,
            floor=floor,
            issued_at=now,
            expires_at=now + self._settings.lifetime_s,
        )
        signed = token.signing_input(token.TokenType.BEAT, signer.kid, claims)
        return token.assemble(signed, await asyncio.to_thread(signer.sign, signed))


def _is_moving(tx: Tx) -> bool:
    """Say whether any device is on its way to other endpoints."""
    found = map(tx.rollout, tx.in_flight())
    return any(rollout is not None and rollout.moves for rollout in found)


def _bounds(tx: Tx, epoch: int, now: float) -> tuple[int, int]:
    """Return the highest sequence number of an epoch, and the lowest that is still good; those below are void."""
    base, highest = tx.base(epoch), tx.highest_seq()
    lowest = tx.lowest_good_seq(now)
    return highest - base, max(0, (highest + 1 if lowest is None else lowest) - base)
