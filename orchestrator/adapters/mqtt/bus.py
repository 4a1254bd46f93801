"""The bus over MQTT: links that come and go, one inbox, acknowledgements after the commit. Implements `ports.Bus`.

Rules:
- The session is persistent: what devices publish while we are away waits at the broker.
- A receipt is good for the link that brought it; the broker repeats what an older link left open.
- The inbox holds what was not taken yet; when it is full we stop reading, we never discard.
- No shared subscriptions: brokers let others join, and deal them reports that nobody records.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import paho.mqtt.client as paho
import structlog

from orchestrator.adapters.mqtt.link import Link, MqttSettings
from orchestrator.core.timing import Timing
from orchestrator.errors import ConfigError, UnavailableError
from orchestrator.ports import Message

__all__ = ["MqttBus", "MqttSettings"]

_log = structlog.get_logger(__name__)
_MID_BITS = 16
STEADY_S = 30.0
"""A link that lived this long resets the back-off."""

MOST_FOUND = 10_000
"""Topics of retained messages that one look remembers."""


class MqttBus:
    """The broker, seen from the daemon.

    Args:
        settings: how to reach it.
        topics: what to subscribe to.

    Attributes:
        received: messages that arrived, those that the broker repeated included.
        published: how long the broker took to acknowledge what was published.
        unpublished: what was to be published and was not acknowledged.
        ticked: when the task that keeps the link last looked after it, by `time.monotonic`.

    Raises:
        ConfigError: a topic is a shared subscription.
    """

    def __init__(self, settings: MqttSettings, topics: Sequence[str]) -> None:
        if shared := [topic for topic in topics if topic.startswith("$share/")]:
            raise ConfigError(
                [f"{topic}: a shared subscription would lose reports; name the topic" for topic in shared]
            )
        self._settings = settings
        self._topics = topics
        self._inbox: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._lost = asyncio.Event()
        self._link: Link | None = None
        self._ready = False
        self._generation = 0
        self._looking: set[str] | None = None
        self.received = 0
        self.published = Timing()
        self.unpublished = 0
        self.ticked = 0.0

    @property
    def links(self) -> int:
        """How many connections were begun so far."""
        return self._generation

    @property
    def link(self) -> int:
        """See `ports.Bus.link`."""
        return self._generation if self._ready else 0

    async def run(self) -> None:
        """See `ports.Bus.run`."""
        pause_s = self._settings.reconnect_min_s
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._stay_connected()
            except UnavailableError as error:
                _log.warning("broker.unavailable", code=error.code, error=error.message)
            if loop.time() - started > STEADY_S:
                pause_s = self._settings.reconnect_min_s
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._settings.reconnect_max_s)

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Message]:
        """See `ports.Bus.receive`."""
        while wait and not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]
        if self._link is not None and len(self._inbox) < self._settings.receive_maximum:
            self._link.pause_reading(False)
        return taken

    def ack(self, messages: Sequence[Message]) -> None:
        """See `ports.Bus.ack`."""
        if self._link is None:
            return
        mine = self._generation << _MID_BITS
        mask = (1 << _MID_BITS) - 1
        mids = [message.receipt & mask for message in messages if message.receipt & ~mask == mine]
        self._link.ack([mid for mid in mids if mid])

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int, retain: bool = False) -> None:
        """See `ports.Bus.publish`."""
        began = time.monotonic()
        try:
            if self._link is None or not self._ready:
                raise UnavailableError("not connected to the broker", code="link_broken")
            await self._link.publish(topic, payload, expiry_s, retain=retain)
        except UnavailableError:
            self.unpublished += 1
            raise
        self.published.note(time.monotonic() - began)

    async def retained(self, topic: str, settle: Callable[[], Awaitable[None]]) -> set[str]:
        """Return the topics below a filter on which messages lie retained; at most `MOST_FOUND`.

        Reports go on arriving meanwhile; some arrive twice.

        Args:
            topic: the filter.
            settle: waits until the broker has replayed what it has.

        Raises:
            UnavailableError: not connected, the connection broke, or the broker refused the subscription.
        """
        link = self._link
        if link is None or not self._ready:
            raise UnavailableError("not connected to the broker", code="link_broken")
        found = self._looking = set()
        try:
            await link.look(topic)
            await settle()
            await link.look_away(topic)
        finally:
            self._looking = None
        return found

    async def _stay_connected(self) -> None:
        self._generation += 1
        self._lost.clear()
        # What waited for us comes before the subscription is answered, and must be acknowledged even then.
        link = self._link = Link(self._settings, self._take, self._note_lost)
        try:
            await link.open(self._topics)
            self.ticked = time.monotonic()
            self._ready = True
            _log.info("broker.connected", host=self._settings.host, port=self._settings.port)
            while not self._lost.is_set():
                self.ticked = time.monotonic()
                link.tick()
                try:
                    async with asyncio.timeout(1.0):
                        await self._lost.wait()
                except TimeoutError:
                    continue
        finally:
            self._ready = False
            self._link = None
            link.close()

    def _take(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no device topic; refused by whoever reads it
        self.received += 1
        receipt = (self._generation << _MID_BITS) | (message.mid if message.qos else 0)
        heard = Message(topic, bytes(message.payload), bool(message.retain), receipt, time.monotonic())
        if self._looking is not None and not self._is_wanted(heard, self._looking):
            self.ack([heard])
            return
        self._inbox.append(heard)
        self._arrived.set()
        if self._link is not None and len(self._inbox) >= 2 * self._settings.receive_maximum:
            self._link.pause_reading(True)

    def _is_wanted(self, heard: Message, found: set[str]) -> bool:
        """Say whether a message came by our own topics, while we look what lies retained; note what does."""
        if heard.retained:
            if heard.payload and len(found) < MOST_FOUND:
                found.add(heard.topic)
            return False
        return any(paho.topic_matches_sub(topic, heard.topic) for topic in self._topics)

    def _note_lost(self, why: str) -> None:
        if self._ready:
            _log.warning("broker.lost", why=why)
        self._ready = False
        self._link = None
        # What was not taken yet comes again on the next link; keeping it would only double the work.
        self._inbox.clear()
        self._lost.set()
