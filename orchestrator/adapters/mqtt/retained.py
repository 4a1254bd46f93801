"""What lies retained at the broker: the daemon looks once per connection, and clears what could be taken for its word.

Rules:
- Keysets and beats are the daemon's; everything else that lies retained below `ota/v1` is foreign, is logged as an
  error and counted.
- Foreign commands are cleared: only the daemon writes there, and it retains none. The rest is reported, for somebody
  else may still write it: `mosquitto_sub --retained-only` shows it, an empty retained message clears it.
- A look never stands in the way of reports. There are brokers that answer a subscription which they do not allow by
  ending the connection: after `TRIES` looks in a row that failed there are no more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from orchestrator.adapters.mqtt.bus import MqttBus
from orchestrator.errors import UnavailableError
from orchestrator.wire import topics

SETTLE_S = 1.0
"""A broker may replay after it answered; this long it is given."""

WATCH_S = 1.0
TRIES = 3
LOGGED = 20
"""Foreign topics that are logged by name after one look."""

_CLEAR_S = 60
_log = structlog.get_logger(__name__)


class RetainedAudit:
    """Looks what lies retained.

    Args:
        bus: the broker.
        pause: waits so many seconds.

    Attributes:
        counts: `retained_foreign` and `retained_cleared`, over all looks.
    """

    def __init__(self, bus: MqttBus, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._bus = bus
        self._pause = pause
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Look once per connection, for ever."""
        seen, failed = 0, 0
        while True:
            if failed < TRIES and self._bus.link not in (0, seen):
                seen = self._bus.link
                try:
                    await self.look()
                except UnavailableError as error:
                    failed += 1
                    _log.warning(
                        "retained.not_examined", code=error.code, error=error.message, tries_left=TRIES - failed
                    )
                else:
                    failed = 0
            await self._pause(WATCH_S)

    async def look(self) -> list[str]:
        """Look once; returns the topics of foreign messages, in order.

        Raises:
            UnavailableError: not connected, the connection broke, or the broker refused the subscription.
        """
        found = await self._bus.retained(topics.EVERYTHING, lambda: self._pause(SETTLE_S))
        foreign = sorted(topic for topic in found if not topics.may_lie_retained(topic))
        self.counts["retained_foreign"] += len(foreign)
        for topic in foreign[:LOGGED]:
            _log.error("retained.foreign", topic=topic[:120], counted=len(foreign))
        for topic in filter(topics.is_command, foreign):
            await self._clear(topic)
        return foreign

    async def _clear(self, topic: str) -> None:
        try:
            await self._bus.publish(topic, b"", expiry_s=_CLEAR_S, retain=True)
        except UnavailableError as error:
            _log.error("retained.not_cleared", topic=topic, code=error.code, error=error.message)
        else:
            self.counts["retained_cleared"] += 1
            _log.warning("retained.cleared", topic=topic)
